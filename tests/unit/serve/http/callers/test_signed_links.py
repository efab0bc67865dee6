import hashlib
from urllib.parse import parse_qs

import pytest
from starlette.datastructures import QueryParams

from serve.http.callers.signed_links import LIFETIME_S, is_signed, is_valid, key_id, sign

MINE, THEIRS = (hashlib.sha256(key).hexdigest() for key in (b"mine", b"theirs"))
NOW = 1_800_000_000.0
PATH = "/jobs/0123/result"


def signed(path: str = PATH, digest: str = MINE) -> QueryParams:
    return QueryParams(sign(path, digest=digest, now=NOW))


def test_a_link_admits_to_its_path_until_it_expires() -> None:
    link = signed()
    assert is_signed(link)
    assert is_valid(PATH, link, digest=MINE, now=NOW + LIFETIME_S - 1)
    assert not is_valid(PATH, link, digest=MINE, now=NOW + LIFETIME_S + 61)
    assert not is_valid("/jobs/0124/result", link, digest=MINE, now=NOW)
    assert not is_valid("/jobs/0123", link, digest=MINE, now=NOW)


def test_a_link_of_another_key_does_not_admit() -> None:
    assert not is_valid(PATH, signed(digest=THEIRS), digest=MINE, now=NOW)
    assert key_id(MINE) != key_id(THEIRS)


def test_the_expiry_cannot_be_changed() -> None:
    link = dict(signed())
    later = QueryParams({**link, "expires": str(int(link["expires"]) + 1)})
    assert not is_valid(PATH, later, digest=MINE, now=NOW)


@pytest.mark.parametrize(
    "changed",
    [{"signature": ""}, {"signature": "ä"}, {"expires": ""}, {"expires": "²"}, {"expires": "-1"}, {"expires": "9" * 5000}],
)
def test_a_malformed_link_is_not_valid(changed: dict[str, str]) -> None:
    assert not is_valid(PATH, QueryParams({**dict(signed()), **changed}), digest=MINE, now=NOW)


def test_a_link_says_nothing_of_the_key_and_stays_the_same_for_a_while() -> None:
    link = sign(PATH, digest=MINE, now=NOW)
    assert MINE[:16] not in link
    assert set(parse_qs(link)) == {"key", "expires", "signature"}
    assert sign(PATH, digest=MINE, now=NOW + 0.5) in (link, sign(PATH, digest=MINE, now=NOW + 60))
