"""Processes are kept between leases, replaced when they die, and end with the pool."""

import gc
import os
import signal

import psutil
import pytest

from serve.media.workers.pool import WorkerPool


@pytest.mark.slow
async def test_a_process_is_leased_again_and_surplus_ones_end() -> None:
    pool = WorkerPool(spare=1)
    async with pool.lease() as first:
        async with pool.lease() as second:
            assert first.pid != second.pid
        assert second.alive, "there was room to keep it"
    assert not first.alive, "one is enough to keep"
    async with pool.lease() as third:
        assert third is second
    pool.close()
    assert not second.alive


@pytest.mark.slow
async def test_a_process_that_died_while_idle_is_replaced_unnoticed() -> None:
    pool = WorkerPool(spare=1)
    async with pool.lease() as first:
        pass
    os.kill(first.pid, signal.SIGKILL)
    psutil.Process(first.pid).wait(10) if first.alive else None
    async with pool.lease() as second:
        assert second.alive
        assert second is not first
    pool.close()


@pytest.mark.slow
async def test_warming_up_starts_the_spare_processes() -> None:
    pool = WorkerPool(spare=2)
    await pool.warm_up()
    assert len(pool.processes) == 2
    async with pool.lease(), pool.lease():
        assert len(pool.processes) == 2
    pool.close()
    assert pool.processes == frozenset()


@pytest.mark.slow
async def test_the_processes_end_when_nobody_refers_to_the_pool() -> None:
    pool = WorkerPool(spare=1)
    async with pool.lease() as worker:
        pid = worker.pid
    del worker, pool
    gc.collect()
    assert not psutil.pid_exists(pid)
