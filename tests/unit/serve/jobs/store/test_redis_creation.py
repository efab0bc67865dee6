"""What the script that creates a job in Redis gets, and what its answers mean."""

import json
import re
from typing import Any

import pytest

from serve.jobs.store.encoding import decode, encode, encode_event
from serve.jobs.store.job_store import KeyReused
from serve.jobs.store.limits import KeptFull, Limits, NoRoom, QueueFull, ServiceFull, StorageFull
from serve.jobs.store.record import Job
from serve.jobs.store.redis_creation import Creation
from serve.jobs.store.redis_rows import RedisRows
from serve.jobs.store.redis_scripts import CREATE
from tests.unit.serve.jobs.samples import NOW, new_job

FIXED = 13
"""The arguments before the fields of the job."""


def creation(job: Job | None = None, max_queued: int = 9, max_kept_of_caller: int | None = None) -> Creation:
    return Creation(RedisRows("films:"), job or new_job(), max_queued, Limits(max_kept_of_caller=max_kept_of_caller))


def test_the_script_reads_as_many_keys_and_arguments_as_it_gets() -> None:
    made = creation()
    assert {int(number) for number in re.findall(r"KEYS\[(\d+)\]", CREATE)} == set(range(1, len(made.keys) + 1))
    arguments = made.arguments(change=True)
    assert {int(number) for number in re.findall(r"ARGV\[(\d+)\]", CREATE)} == set(range(1, FIXED + 1))
    assert f"unpack(ARGV, {FIXED + 1})" in CREATE
    assert all(isinstance(value, str | int | float) for value in arguments)  # Redis takes no None and no bool


def test_a_job_is_written_with_all_that_is_asked_of_it_later() -> None:
    job = new_job(fingerprint="f", request_bytes=100)
    fields = creation(job).arguments(change=True)[FIXED:]
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    assert decode(found["record"], beat=found["beat"]) == job
    del found["record"]
    assert found == {
        "beat": 0, "attempt": 0, "owner": "", "state": "queued", "expires_at": job.expires_at, "write": "", "kept": 100,
        "fingerprint": "f",
    }  # fmt: skip


def test_the_turn_of_a_job_lacks_its_number_which_the_script_puts_before_it() -> None:
    for caller in ("ann", 'a"b]', "\u00e9", ""):
        turn = creation(new_job(caller=caller)).arguments(change=True)[6]
        assert json.loads(f"[17,{turn}") == [17, caller, False, ""]


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({}, [-1, -1, -1]),
        ({"max_kept_of_caller": 5, "max_queued": 6, "max_kept": 7}, [5, 6, 7]),
        ({"max_kept_of_caller": 0, "max_queued": 0, "max_kept": 0}, [0, 0, 0]),
    ],
)
def test_a_limit_of_nothing_is_not_taken_for_no_limit(limits: dict[str, int], most: list[int]) -> None:
    made = Creation(RedisRows("films:"), new_job(), 9, Limits(**limits))
    assert made.arguments(change=True)[9:12] == most


def test_a_look_differs_from_a_creation_in_one_argument() -> None:
    made = creation(new_job(idempotency_key="k"), 3)
    look, change = made.arguments(change=False), made.arguments(change=True)
    assert [at for at, pair in enumerate(zip(look, change, strict=True)) if pair[0] != pair[1]] == [FIXED - 1]
    assert (look[FIXED - 1], change[FIXED - 1]) == (1, 0)
    assert (change[2], change[4]) == (3, 1)
    assert creation().arguments(change=True)[4] == 0
    assert change[5] == encode_event(made._job)


@pytest.mark.parametrize(
    ("answer", "error", "values"),
    [
        (["full", 9], QueueFull, (9,)),
        (["kept", "300", "1000050"], KeptFull, (300, 400, NOW + 50)),
        (["kept", 300, ""], KeptFull, (300, 400, None)),
        (["all full", 12], ServiceFull, (12,)),
        (["all kept"], StorageFull, ("the files of all jobs take as much space as they may",)),
    ],
)
def test_a_refusal_says_what_is_full(answer: list[Any], error: type[NoRoom], values: tuple[object, ...]) -> None:
    with pytest.raises(error) as refused:
        creation(max_kept_of_caller=400).instead(answer)
    assert refused.value.args == values


@pytest.mark.parametrize("answer", [["made"], ["room"]])
def test_a_job_that_was_made_or_has_room_has_nothing_in_its_place(answer: list[str]) -> None:
    assert creation().instead(answer) is None


def test_the_earlier_job_of_a_key_is_returned_as_it_is_now_unless_its_request_differs() -> None:
    earlier = new_job(idempotency_key="k", fingerprint="f", beat=4)
    record = encode(earlier)
    again = new_job(idempotency_key="k", fingerprint="f")
    assert creation(again).instead(["same", record, "5", "f"]) == decode(record, beat=5)
    other = new_job(idempotency_key="k", fingerprint="g")
    with pytest.raises(KeyReused) as reused:
        creation(other).instead(["same", record, "5", "f"])
    assert (reused.value.args, reused.value.differs) == (("k",), ("body",))
    # A creation that is run again finds its own job.
    assert creation(earlier).instead(["there", record, "4"]) == earlier
