"""What stops a job whose lease a Runner holds, and what its caller is advised."""

from dataclasses import replace

import pytest

from serve.config import Hardware
from serve.jobs.held_job import HeldJob
from serve.jobs.store.record import Progress
from serve.pipelines.meter import Meter
from tests.unit.serve.jobs.samples import new_job


async def test_the_first_reason_to_stop_counts() -> None:
    held = HeldJob(new_job())
    assert not held.stopped.done()
    held.stop("cancelled")
    held.stop("lost")
    held.stop("left")
    assert held.stopped.result() == "cancelled"


async def test_a_job_that_is_ending_is_not_stopped() -> None:
    """Its lease ends with it, so that the next beat does not find it."""
    held = HeldJob(new_job())
    held.ending = True
    held.stop("lost")
    assert not held.stopped.done()


async def test_nothing_is_known_of_a_job_that_is_just_taken() -> None:
    held = HeldJob(new_job())
    assert (held.turn.is_set(), held.ending, list(held.steps), held.meter.hardware) == (False, False, [], {})


async def test_a_step_that_says_nothing_new_is_left_out() -> None:
    held, starting = HeldJob(new_job()), Progress(stage="starting")
    held.show(starting)
    held.steps.clear()  # the store has them
    for step in (starting, replace(starting, detail="loading"), replace(starting, detail="loading"), starting):
        held.show(step)
    assert [step.detail for step in held.steps] == ["loading", ""]


@pytest.mark.parametrize(
    ("models", "begun", "advice"),
    [
        ([], [], "POST /warm"),
        (["wan26"], [], "POST /warm"),
        (["wan26"], ["wan26"], "ask for fewer frames or steps"),
        (["wan26", "face-swapper"], ["wan26"], "ask for fewer frames or steps"),
        (["wan26", "face-swapper"], ["face-swapper"], "POST /warm"),
    ],
)
async def test_who_waited_for_a_model_is_told_to_start_it_and_who_asked_for_much_to_ask_for_less(
    models: list[str], begun: list[str], advice: str
) -> None:
    held = HeldJob(new_job())
    held.meter = Meter({model: Hardware() for model in models})
    for model in begun:
        held.meter.add_work(model, 1)
    assert advice in held.advice()
