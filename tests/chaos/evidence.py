"""What must be true of jobs after processes were killed: none is lost, and none is there twice."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.chaos.customer import ENDED, Customer, Delivered
from tests.chaos.orders import same_frames
from tests.chaos.receiver import Receiver
from tests.chaos.supervised import wait_for

WEBHOOK_S = 150
"""Seconds after which a webhook must have come whose sender was killed: it is sent again after 70.
"""


def check_results(deliveries: Sequence[Delivered], undisturbed: Mapping[str, bytes]) -> None:
    """Assert that each order has the one result that it has without losses, frame by frame."""
    failed = [delivered.record for delivered in deliveries if delivered.record["state"] != "succeeded"]
    assert not failed, f"{len(failed)} of {len(deliveries)} jobs were lost, such as {failed[0]}"
    wrong = [d.order for d in deliveries if not same_frames(d.data, undisturbed[d.order.kind.name])]
    assert not wrong, f"{len(wrong)} results differ from an undisturbed run, such as that of {wrong[0]}"


def check_records(deliveries: Sequence[Delivered], customers: Sequence[Customer], *, before: int = 0) -> None:
    """Assert that there is one record for each order, beside ``before`` earlier ones."""
    ids = [job_id for delivered in deliveries for job_id in delivered.job_ids]
    assert len(set(ids)) == len(ids) == len(deliveries)
    listed = [record["id"] for customer in customers for record in customer.listed()]
    assert len(listed) == len(set(listed)) == len(ids) + before, "there are records that nobody ordered"
    assert set(ids) <= set(listed)


def check_events(deliveries: Sequence[Delivered]) -> None:
    """Assert that each job has one end, and that its progress never falls within an attempt."""
    for delivered in deliveries:
        numbers = [number for number, _, _ in delivered.events]
        assert numbers == list(range(1, len(numbers) + 1)), delivered
        names = [name for _, name, _ in delivered.events]
        assert [name for name in names if name in ENDED] == ["succeeded"], names
        for (_, _, before), (_, _, after) in zip(delivered.events, delivered.events[1:], strict=False):
            assert after["attempts"] >= before["attempts"], delivered
            if after["attempts"] == before["attempts"]:
                assert after["percent"] >= before["percent"], (before, after)


def check_webhooks(deliveries: Sequence[Delivered], receiver: Receiver) -> int:
    """Assert that each job has told its end under one id, and return how many told it again."""
    again = 0
    for delivered in deliveries:
        (job_id,) = delivered.job_ids
        got = wait_for(partial(receiver.of, job_id), WEBHOOK_S, partial(str.format, "no webhook of {}", job_id))
        assert len({name for name, _ in got}) == 1, got
        assert all(body["type"] == "job.succeeded" for _, body in got)
        again += len(got) - 1
    return again


def check_files(folder: Path, results: int) -> None:
    """Assert that only the results are left of the files of jobs, each of them once."""
    left = {part.name: [path for path in part.rglob("*") if path.is_file()] for part in folder.iterdir()}
    assert len(left.pop("results")) == results
    assert not any(left.values()), left
