"""A certificate or a key that cannot sign is refused at the start, with what is wrong with it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from serve.provenance.certificates import CertificateRefused, Identity, load_identity
from serve.provenance_settings import C2paSettings
from tests.unit.serve.provenance.authority import Authority, Key, make_authority

DATA = b"what is signed"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


def elliptic() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def load(**settings: Any) -> Identity:
    identity = load_identity(C2paSettings.model_validate(settings))
    assert identity is not None
    return identity


def test_without_a_certificate_there_is_no_identity() -> None:
    assert load_identity(C2paSettings()) is None


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_an_elliptic_key_signs_as_cose_has_it(authority: Authority, curve: Any) -> None:
    key = ec.generate_private_key(curve)
    identity = load(**authority.files(key, authority.issue(key)))
    signature = identity.sign(DATA)
    half = (curve.key_size + 7) // 8
    assert len(signature) == 2 * half
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[curve.key_size]
    key.public_key().verify(encode_dss_signature(r, s), DATA, ec.ECDSA(digest))
    assert identity.algorithm == {256: "es256", 384: "es384", 521: "es512"}[curve.key_size]
    assert (identity.name, identity.is_test) == ("Example signer", False)


def test_rsa_and_ed25519_sign_too(authority: Authority) -> None:
    key = rsa.generate_private_key(65537, 2048)
    identity = load(**authority.files(key, authority.issue(key)), algorithm="ps384")
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size)
    key.public_key().verify(identity.sign(DATA), DATA, pss, hashes.SHA384())
    assert identity.algorithm == "ps384"
    edwards = ed25519.Ed25519PrivateKey.generate()
    identity = load(**authority.files(edwards, authority.issue(edwards)))
    edwards.public_key().verify(identity.sign(DATA), DATA)


def test_a_function_signs_in_place_of_a_key(authority: Authority) -> None:
    key = elliptic()
    chain = authority.files(key, authority.issue(key))["certificate"]
    identity = load(certificate=chain, signer=f"{__name__}:sign_nothing", algorithm="es256")
    assert identity.sign(DATA) == b"nothing"


def sign_nothing(_: bytes) -> bytes:
    """Stand for a function that calls a KMS."""
    return b"nothing"


NUMBER = 3


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (f"{__name__}:nowhere", "cannot be imported"),
        ("no_such_module.at_all:sign", "cannot be imported"),
        (f"{__name__}:NUMBER", "is not a function"),
    ],
)
def test_a_signer_that_is_no_function_is_refused(authority: Authority, function: str, reason: str) -> None:
    key = elliptic()
    chain = authority.files(key, authority.issue(key))["certificate"]
    with pytest.raises(CertificateRefused, match=reason):
        load(certificate=chain, signer=function, algorithm="es256")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "expired": (
        {"begins": timedelta(days=-9), "ends": timedelta(seconds=-1)},
        r"expired at \d{4}-\d\d-\d\d \d\d:\d\d UTC: renew",
    ),
    "not yet valid": ({"begins": timedelta(days=1)}, "is valid only from"),
    "not for signing": ({"signs": False}, "lacks digitalSignature"),
    "for no purpose": ({"extended": False}, "does not say what its key is for"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_certificate_that_cannot_sign_is_refused(authority: Authority, fault: str) -> None:
    options, reason = FAULTS[fault]
    key = elliptic()
    with pytest.raises(CertificateRefused, match=reason):
        load(**authority.files(key, authority.issue(key, **options)))


def test_it_expires_at_the_very_moment_that_it_says(authority: Authority) -> None:
    key = elliptic()
    settings = C2paSettings.model_validate(authority.files(key, authority.issue(key)))
    identity = load_identity(settings)
    assert identity is not None
    assert load_identity(settings, identity.expires_at - timedelta(seconds=1)) is not None
    with pytest.raises(CertificateRefused, match="expired"):
        load_identity(settings, identity.expires_at)
    assert identity.expires_at > datetime.now(UTC)


@pytest.mark.parametrize("other", [elliptic(), ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())])
def test_a_key_of_another_certificate_is_refused(authority: Authority, other: Key) -> None:
    key = elliptic()
    with pytest.raises(CertificateRefused, match="is not that of the first certificate in"):
        load(**authority.files(key, authority.issue(key), written=other))


def test_a_chain_in_the_wrong_order_or_with_a_gap_is_refused(authority: Authority, tmp_path: Path) -> None:
    key = elliptic()
    leaf = authority.issue(key)
    with pytest.raises(CertificateRefused, match="has signed itself"):
        load(**authority.files(authority.key, authority.certificate, leaf))
    (tmp_path / "other").mkdir()
    other = elliptic()
    stranger = make_authority(tmp_path / "other").issue(other)
    with pytest.raises(CertificateRefused, match="must come that of its issuer, `CN=Example root"):
        load(**authority.files(key, leaf, stranger))
    assert load(**authority.files(key, leaf, authority.certificate)).chain.count("BEGIN CERTIFICATE") == 2


def test_files_that_cannot_be_read_are_named(authority: Authority, tmp_path: Path) -> None:
    key = elliptic()
    files = authority.files(key, authority.issue(key))
    with pytest.raises(CertificateRefused, match=r"c2pa.certificate: .*nowhere.pem cannot be read \(No such file"):
        load(**{**files, "certificate": tmp_path / "nowhere.pem"})
    with pytest.raises(CertificateRefused, match=r"c2pa.private_key: .* cannot be read"):
        load(**{**files, "private_key": tmp_path})
    (tmp_path / "junk.pem").write_bytes(b"junk")
    with pytest.raises(CertificateRefused, match="has no certificate in PEM"):
        load(**{**files, "certificate": tmp_path / "junk.pem"})
    with pytest.raises(CertificateRefused, match="has no private key in PEM without a passphrase"):
        load(**{**files, "private_key": tmp_path / "junk.pem"})
    with pytest.raises(CertificateRefused, match="has no private key in PEM without a passphrase"):
        load(**authority.files(key, authority.issue(key), passphrase=b"secret"))


def test_keys_that_c2pa_does_not_know_are_refused(authority: Authority) -> None:
    curve = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(CertificateRefused, match="use P-256, P-384 or P-521"):
        load(**authority.files(curve, authority.issue(curve)))
    short = rsa.generate_private_key(65537, 1024)
    with pytest.raises(CertificateRefused, match="at least 2048 are needed"):
        load(**authority.files(short, authority.issue(short)))
    key = elliptic()
    with pytest.raises(CertificateRefused, match=r"signs with es256, and provenance.c2pa.algorithm is es384"):
        load(**authority.files(key, authority.issue(key)), algorithm="es384")
