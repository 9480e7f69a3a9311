"""Instances of the services: processes, or tasks of this one where the store lives in it."""

import asyncio
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from service import DRAIN, RETRIES

import osdisco
from osdisco.mesh import ExtensionServiceMesh, HttpTransport, Listener
from osdisco.registry import ServiceDefinition

HERE = Path(__file__).parent


class Process:
    """What `python geo.py 1.0.0` starts."""

    kill_is = "SIGKILL"

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def start(cls, url: str, name: str, version: str) -> "Process":
        command = (sys.executable, str(HERE / f"{name}.py"), version)
        environment = {**os.environ, "OSDISCO_URL": url}
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
        return cls(name, process)

    async def ready(self) -> None:
        if not await self._process.stdout.readline():
            raise RuntimeError(f"{self.name} did not start")

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> bool:
        """Let it leave; returns whether it left as it should. Who was killed has left already."""
        if self._process.returncode is not None:
            return self._process.returncode == -9
        self._process.terminate()
        return await self._process.wait() == 0


class Ports(HttpTransport):
    """HTTP whose ports can be closed as the kernel closes those of a process that dies."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[Listener] = []

    async def listen(self, *args: Any) -> Listener:
        self._listeners.append(await super().listen(*args))
        return self._listeners[-1]

    async def close_ports(self) -> None:
        for listener in self._listeners:
            await listener.aclose()


class Task:
    """The same within this process. Killed, it is still registered, and nobody listens there: who calls has to cope."""

    kill_is = "its port is closed, and nobody is told"

    def __init__(self, url: str, name: str, version: str) -> None:
        self.name = name
        self._ports = Ports()
        self._ready, self._end = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._live(url, version))

    @classmethod
    async def start(cls, url: str, name: str, version: str) -> "Task":
        return cls(url, name, version)

    async def _live(self, url: str, version: str) -> None:
        handlers = import_module(self.name).handlers
        async with (
            osdisco.connect(url) as client,
            ExtensionServiceMesh(client, retry_policies=RETRIES, transport=self._ports) as mesh,
            mesh.serve(ServiceDefinition(self.name, version), handlers(mesh, version), drain=DRAIN),
        ):
            self._ready.set()
            await self._end.wait()

    async def ready(self) -> None:
        await self._ready.wait()

    async def kill(self) -> None:
        await self._ports.close_ports()

    async def stop(self) -> bool:
        self._end.set()
        await self._task
        return True
