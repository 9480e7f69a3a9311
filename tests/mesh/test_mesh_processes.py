"""Calls from one process to real other ones: killed, stopped, slow, half-open, failing, restarted one by one.

The store in memory lives in one process; what serves there is cut off by proxies, in `test_mesh_stores`.
"""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from attrs import frozen
from real_town import IDEMPOTENT, Town, half_open, load, more
from worlds import process_of, until

from osdisco.mesh import ExtensionServiceMesh, Outcome
from osdisco.mesh.retry import NEVER
from osdisco.testing import ChaosProxy
from osdisco.testing._api import free_port

SERVER = """
import asyncio, os, signal, sys
import osdisco
from osdisco.discovery import Drain
from osdisco.integrations import run_until_terminated
from osdisco.mesh import ExtensionServiceMesh
from osdisco.registry import ServiceDefinition

url, address, port = sys.argv[1:]
pause, broken = 0.002, False

def slow():
    global pause
    pause = 0.1

def fail():
    global broken
    broken = True

async def who():
    await asyncio.sleep(pause)
    if broken:
        raise RuntimeError("broken")
    return os.getpid()

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, fail)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, slow)
    definition, handlers = ServiceDefinition("geo", "1", address), {"who": who, "add": who}
    async with osdisco.connect(url) as client, ExtensionServiceMesh(client) as mesh:
        async with mesh.serve(definition, handlers, port=int(port), drain=Drain(propagation=0.5, grace=5)) as server:
            print("ready", flush=True)
            await run_until_terminated(server.registration)

asyncio.run(main())
"""


@frozen
class Instance:
    """A process that serves `geo`, at the address of a proxy; `who` returns its pid."""

    process: Process
    proxy: ChaosProxy

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def instance(url: str) -> AsyncGenerator[Instance, None]:
    port = free_port()
    async with ChaosProxy(f"127.0.0.1:{port}") as proxy, process_of(SERVER, url, proxy.address, str(port)) as process:
        yield Instance(process, proxy)


class Fleet(Town):
    """Instances, and one that calls them."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        super().__init__(url, stack)
        self.instances: list[Instance] = []

    async def start(self, number: int = 1) -> None:
        """Start so many more."""
        starting = (self._stack.enter_async_context(instance(self._url)) for _ in range(number))
        self.instances += await asyncio.gather(*starting)

    async def seen_by(self, mesh: ExtensionServiceMesh) -> None:
        """Wait until it has called all."""
        async with load(mesh) as results:
            await until(lambda: {one.pid for one in self.instances} <= set(results), 10)


@pytest.fixture
async def geo(osdisco_url: str) -> AsyncGenerator[Fleet, None]:
    async with AsyncExitStack() as stack:
        fleet = Fleet(f"{osdisco_url}{'&' if '?' in osdisco_url else '?'}ttl=3s", stack)
        await fleet.start(3)
        yield fleet


def sends(number: signal.Signals) -> Callable[[Instance], None]:
    return lambda one: one.send(number)


TROUBLES: dict[str, tuple[Callable[[Instance], None], str, set[Outcome]]] = {
    "killed": (sends(signal.SIGKILL), "F13", {Outcome.UNSENT, Outcome.FAILED}),
    "paused": (sends(signal.SIGSTOP), "", {Outcome.TIMEOUT}),
    "slow": (sends(signal.SIGUSR2), "F18", {Outcome.OK}),
    "half-open": (lambda one: half_open(one.proxy), "F17", {Outcome.TIMEOUT}),
    "500s": (sends(signal.SIGUSR1), "", {Outcome.FAILED}),
}
"""What is done to one of three, its class of faults, and as what it must have been met by whoever calls it."""


@pytest.mark.parametrize(
    "trouble",
    [pytest.param(name, marks=pytest.mark.fault(fault) if fault else ()) for name, (_, fault, _) in TROUBLES.items()],
)
@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_one_of_three_processes_in_trouble_costs_no_idempotent_call(trouble: str, geo: Fleet) -> None:
    begin, _, outcomes = TROUBLES[trouble]
    mesh = await geo.mesh(retry_policies=IDEMPOTENT)
    await geo.seen_by(mesh)
    victim = geo.instances[0]
    met = mesh.services["geo"].pool.states[victim.proxy.address].outcomes
    async with load(mesh) as results:
        await more(results, 100)
        met.clear()
        begin(victim)
        await more(results, 500)
        await until(lambda: outcomes & set(met), 10)
        await more(results, 100)
    assert set(results) <= {one.pid for one in geo.instances}
    if trouble not in ("slow", "500s"):
        assert victim.pid not in results[-100:]


@pytest.mark.fault("F12")
@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_one_that_is_stopped_for_longer_than_its_lease_and_goes_on_is_called_again(geo: Fleet) -> None:
    mesh = await geo.mesh(retry_policies=IDEMPOTENT)
    await geo.seen_by(mesh)
    stopped = geo.instances[0]
    async with load(mesh) as results:
        stopped.send(signal.SIGSTOP)
        await until(lambda: stopped.proxy.address not in mesh.services["geo"].view, 20)
        await more(results, 100)
        gone = len(results)
        stopped.send(signal.SIGCONT)
        await until(lambda: stopped.pid in results[gone:], 20)
        await more(results, 100)
    assert set(results) == {one.pid for one in geo.instances}


@pytest.mark.osdisco("etcd", "etcd+http", "consul")
async def test_processes_restarted_one_by_one_cost_no_call_idempotent_or_not(geo: Fleet) -> None:
    """Nothing is tried again here, so that each call that met who was gone would show."""
    mesh = await geo.mesh(retry_policies=NEVER)
    await geo.seen_by(mesh)
    async with load(mesh, "add") as results:
        begun = list(geo.instances)
        await geo.start(3)
        for one in begun:
            one.send(signal.SIGTERM)
            assert await one.process.wait() == 0
            await more(results, 50)
    assert set(results) == {one.pid for one in geo.instances}
    assert not {one.pid for one in begun} & set(results[-50:])
