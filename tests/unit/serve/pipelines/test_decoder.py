"""Pictures are decoded within the budgets, whatever the files and their callers do."""

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from deployments.errors import RequestRefused
from serve.config import Limits, RunnerSettings
from serve.media.images import encode_image
from serve.media.samples import portrait, stranger
from serve.pipelines.decoder import Decoder, Picture
from serve.pipelines.errors import MediaOverLimit
from tests.pictures import decode_image
from tests.unit.serve.media.make_picture import BOMB, encoded, with_scans
from tests.unit.serve.media.workers.waiting import until

pytestmark = pytest.mark.own_pool

SMALL = encode_image(portrait(), "image/png")
OTHER = encode_image(stranger(), "image/jpeg")
LARGE = encoded("PNG", 1000, 900)
NO_SCANS = 10**6


@pytest.fixture
def decoders() -> Iterator[Any]:
    made: list[Decoder] = []

    def make(limits: dict[str, Any] | None = None, **settings: Any) -> Decoder:
        made.append(Decoder(RunnerSettings(**settings), Limits(**(limits or {}))))
        return made[-1]

    yield make
    for decoder in made:
        assert decoder.memory.reserved == 0, "everything is given back"
        decoder.pool.close()


async def decode(decoder: Decoder, *pictures: Picture, caller: str = "caller") -> list[Any]:
    async with decoder.pictures(pictures, caller) as decoded:
        return [image for field in dict.fromkeys(p.field for p in pictures) for image in decoded.of(field)]


async def test_pictures_of_any_size_arrive_by_their_field_and_in_order(decoders: Any) -> None:
    decoder = decoders()
    for first in (SMALL, LARGE):
        pictures = [Picture("source", first), Picture("face", OTHER), Picture("face", SMALL)]
        async with decoder.pictures(pictures, "caller") as decoded:
            np.testing.assert_array_equal(decoded.of("source")[0], decode_image(first, 10**7))
            for image, data in zip(decoded.of("face"), (OTHER, SMALL), strict=True):
                np.testing.assert_array_equal(image, decode_image(data, 10**7))


async def test_the_memory_is_held_while_the_pictures_are_and_given_back_early(decoders: Any) -> None:
    decoder = decoders()
    async with decoder.pictures([Picture("source", LARGE, copies=4)], "caller", beside_bytes=1000) as decoded:
        held = decoder.memory.reserved
        assert 4 * 3 * 900_000 <= held - 1000 < 23 * 900_000
        decoded.drop()
        assert decoder.memory.reserved == 1000


async def test_a_video_of_any_size_leaves_room_for_others(decoders: Any) -> None:
    decoder = decoders()
    async with decoder.pictures([], "caller", beside_bytes=2**40):
        assert decoder.memory.reserved == decoder.memory.half
        assert len(await decode(decoder, Picture("source", LARGE))) == 1


async def test_large_pictures_wait_for_memory_before_they_are_decoded(decoders: Any) -> None:
    decoder = decoders(max_decoded_bytes=30 * 10**6)
    async with decoder.memory.reserve(15 * 10**6, "another"):
        call = asyncio.ensure_future(decode(decoder, Picture("source", LARGE)))
        (small,) = await decode(decoder, Picture("source", SMALL))
        assert small is not None
        assert not call.done()
    assert len(await call) == 1


async def test_a_fault_names_the_field_and_the_place_of_the_file(decoders: Any) -> None:
    decoder = decoders({"max_image_pixels": 100_000})
    with pytest.raises(RequestRefused) as refused:
        await decode(decoder, Picture("source", SMALL), Picture("face", b"text", "image 2 of 3"))
    assert (refused.value.field, refused.value.detail[:35]) == ("face", "image 2 of 3: the file is not an im")
    for data, detail in ((LARGE, "1000 x 900 pixels"), (with_scans(101), "more than 100 scans")):
        with pytest.raises(MediaOverLimit, match=detail):
            await decode(decoder, Picture("source", data))
    with pytest.raises(RequestRefused, match="damaged or truncated"):
        await decode(decoder, Picture("source", OTHER[:-2000]))


@pytest.mark.slow
async def test_all_pictures_of_a_request_share_its_cpu_time(decoders: Any) -> None:
    decoder = decoders({"max_image_cpu_s": 0.5, "max_image_scans": NO_SCANS})
    with pytest.raises(MediaOverLimit, match="too much time"):
        await decode(decoder, *[Picture("face", with_scans(60, side=2000)) for _ in range(8)])


@pytest.mark.slow
async def test_a_caller_that_leaves_ends_its_work_and_the_next_is_served(decoders: Any) -> None:
    decoder = decoders({"max_image_scans": NO_SCANS, "max_image_cpu_s": 600}, media_processes=1)
    (picture,) = await decode(decoder, Picture("source", SMALL))
    (first,) = decoder.pool.processes
    call = asyncio.ensure_future(decode(decoder, Picture("source", BOMB)))
    await until(lambda: decoder.memory.reserved >= 15 * 2000 * 2000)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not first.alive
    assert first.reaped(10)
    np.testing.assert_array_equal((await decode(decoder, Picture("source", SMALL)))[0], picture)


@pytest.mark.slow
async def test_four_bombs_of_one_caller_do_not_hold_up_another(decoders: Any) -> None:
    decoder = decoders({"max_image_scans": NO_SCANS, "max_image_cpu_s": 600}, media_processes=4)
    bombs = [asyncio.ensure_future(decode(decoder, Picture("source", BOMB), caller="attacker")) for _ in range(4)]
    await until(lambda: decoder.memory.reserved >= 2 * 15 * 2000 * 2000)
    assert len(await decode(decoder, Picture("source", SMALL), caller="other")) == 1
    assert not any(bomb.done() for bomb in bombs)
    for bomb in bombs:
        bomb.cancel()
    await asyncio.wait(bombs)


async def kill_workers(decoder: Decoder, number: signal.Signals, times: int) -> None:
    """Kill the process that works, ``times`` times, each time another one."""
    killed: set[int] = set()
    while len(killed) < times:
        for worker in decoder.pool.processes:
            if worker.pid not in killed and decoder.memory.reserved >= 15 * 2000 * 2000:
                os.kill(worker.pid, number)
                killed.add(worker.pid)
        await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_file_that_ends_two_processes_is_refused(decoders: Any, number: signal.Signals) -> None:
    decoder = decoders({"max_image_scans": NO_SCANS, "max_image_cpu_s": 600}, media_processes=1)
    call = asyncio.ensure_future(decode(decoder, Picture("source", BOMB)))
    await kill_workers(decoder, number, 2)
    with pytest.raises(RequestRefused, match=f"cannot be decoded.*{number.name}") as refused:
        await call
    assert type(refused.value) is RequestRefused
    assert refused.value.field == "source"


@pytest.mark.slow
async def test_an_innocent_file_survives_the_end_of_its_process(decoders: Any) -> None:
    decoder = decoders({"max_image_scans": NO_SCANS, "max_image_cpu_s": 600}, media_processes=1)
    data = with_scans(200, side=2000)
    call = asyncio.ensure_future(decode(decoder, Picture("source", data)))
    await kill_workers(decoder, signal.SIGKILL, 1)
    np.testing.assert_array_equal((await call)[0], decode_image(data, 10**8))
