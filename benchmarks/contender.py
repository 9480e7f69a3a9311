"""A process of its own: `python -m benchmarks.contender '<spec as JSON>'`; it talks in lines of JSON on its pipes.

Times are of the clock that all processes of a machine share, in seconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import stat
import sys
import threading
import time
import tracemalloc
from typing import Any

import osdisco
from benchmarks import cluster_members, members
from benchmarks.pipe import say, told_by_parent
from osdisco.coordination import CoordinationService

NAME = "bench"


async def chain(
    url: str, waiters: int, hold: float, pause: float, laps: int, spread: float = 0.0, name: str = NAME
) -> None:
    """Take turns: each waiter holds for `hold` seconds and comes again `pause` seconds after it released.

    They first come within `spread` seconds, so that those of several processes stand mixed in the queue. Ends after
    `laps` turns of each, or when it is told to; then says token and times of every turn.
    """
    turns: list[tuple[int, float, float]] = []
    ended = False

    async def waiter(lock: Any) -> None:
        await asyncio.sleep(random.random() * spread)  # nosec B311 # noqa: S311 - only when they begin
        for _ in range(laps or sys.maxsize):
            guard = await lock.acquire()
            acquired = time.monotonic()
            if hold:
                await asyncio.sleep(hold)
            released = time.monotonic()
            await guard.release()
            turns.append((guard.token, acquired, released))
            if ended:
                return
            if pause:
                await asyncio.sleep(pause)

    async with osdisco.connect(url) as client:
        await client.shared_session()
        service = CoordinationService(client)
        tasks = [asyncio.create_task(waiter(service.lock(name))) for _ in range(waiters)]
        say(ready=True)
        ending = asyncio.create_task((await told_by_parent()).readline())
        await asyncio.wait([ending, asyncio.gather(*tasks)], return_when=asyncio.FIRST_COMPLETED)
        ended = True
        await asyncio.gather(*tasks)
        ending.cancel()
    say(turns=turns, pid=os.getpid())


async def hold(url: str, name: str = NAME) -> None:
    """Acquire the lock and keep it until we are killed."""
    async with osdisco.connect(url) as client, CoordinationService(client).lock(name) as guard:
        say(key=guard._entry.key)
        await guard.lost.wait()


async def idle(url: str, waiters: int, names: int, traced: bool, held: bool = False) -> None:
    """Wait in locks that others hold, and say what that takes once told that all are in the queue.

    With `held` the holder is another client here, for a store that is in the process.
    """
    told = await told_by_parent()
    async with osdisco.connect(url) as holder, osdisco.connect(url) as client:
        if held:
            await CoordinationService(holder).lock(NAME).acquire()
        service = CoordinationService(client)
        await asyncio.gather(*(_enter(service.lock(f"first{number}")) for number in range(2)))  # loads what is needed
        locks = [service.lock(NAME if names == 1 else f"{NAME}{number % names}") for number in range(waiters)]
        before = _state(traced)
        tasks = []
        for number, lock in enumerate(locks):
            tasks.append(asyncio.create_task(_enter(lock)))
            if number % 20 == 0:  # else the burst of requests is what the process remembers
                await asyncio.sleep(0.05)
        say(ready=True)
        await told.readline()
        after = _state(traced)
        say(before=before, after=after, watches=len(client._feeds))
        await asyncio.gather(*tasks)  # until we are killed


async def _enter(lock: Any) -> None:
    async with lock:
        pass


def _state(traced: bool) -> dict[str, int]:
    """Return bytes of Python objects and of the process, and its sockets."""
    if traced and not tracemalloc.is_tracing():
        tracemalloc.start(1)
    gc.collect()
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    sockets = sum(stat.S_ISSOCK(os.stat(f"/proc/self/fd/{fd}").st_mode) for fd in _descriptors())
    traced_bytes = tracemalloc.get_traced_memory()[0] if traced else 0
    return {"traced": traced_bytes, "resident": resident, "sockets": sockets}


def _descriptors() -> list[str]:
    with os.scandir("/proc/self/fd") as entries:
        found = [entry.name for entry in entries]
    return [fd for fd in found if os.path.exists(f"/proc/self/fd/{fd}")]  # one of them was the scan's own


def tooz_chain(address: str, waiters: int) -> None:
    """The same as `chain` without holding or pausing, by tooz in threads of this process, on locks of its own each."""
    from tooz import coordination

    turns: list[tuple[float, float]] = []
    ended = threading.Event()

    def waiter(number: int) -> None:
        coordinator = coordination.get_coordinator(
            f"etcd3+http://{address}?api_version=v3", f"{os.getpid()}-{number}".encode()
        )
        coordinator.start()
        lock = coordinator.get_lock(NAME.encode())
        while not ended.is_set():
            lock.acquire()
            acquired = time.monotonic()
            released = time.monotonic()
            lock.release()
            turns.append((acquired, released))
        coordinator.stop()

    threads = [threading.Thread(target=waiter, args=(n,), daemon=True) for n in range(waiters)]
    for thread in threads:
        thread.start()
    say(ready=True)
    sys.stdin.readline()
    ended.set()
    for thread in threads:
        thread.join(10)
    say(turns=[(0, *turn) for turn in turns], pid=os.getpid())
    os._exit(0)


def main() -> None:
    """Do what the specification says: `do` names a function of this module, the rest are its arguments."""
    spec = json.loads(sys.argv[1])
    what = {"chain": chain, "hold": hold, "idle": idle, "tooz_chain": tooz_chain}
    what |= {"register": members.register, "change": members.change, "see": members.see, "see_raw": members.see_raw}
    what |= {"hear": members.hear, "hear_raw": members.hear_raw}
    what |= {"mirror_cluster": cluster_members.mirror_cluster, "read_cluster": cluster_members.read_cluster}
    what |= {"read_blob": cluster_members.read_blob}
    work = what[spec.pop("do")](**spec)
    if work is not None:
        asyncio.run(work)


if __name__ == "__main__":
    main()
