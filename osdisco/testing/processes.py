"""Servers for tests as processes of this machine, on loopback: up in a third of a second, no Docker needed.

Each lives under a small guard that kills it and removes its files when the end of a pipe closes, so that nothing
outlives the test run, however that ends. Ctrl-C does not reach them: they are there until the tests have cleaned up.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from osdisco.testing._api import free_port, wait_for
from osdisco.testing._stores import (
    START_SECONDS,
    ConsulAccess,
    ConsulServer,
    EtcdAccess,
    EtcdServer,
    Server,
    consul_config,
    etcd_command,
)

_ON_LINUX: Final = Path("/proc/self/stat").exists()
_GUARD: Final = """
folder=$1; shift
"$@" >&2 & echo $!
read -r said  # `keep`, or nothing when its owner is gone
kill -KILL $! 2>/dev/null; wait
[ "$said" = keep ] || rm -rf "$folder"
"""


def find_binary(name: str) -> str | None:
    """Return the path of a server's binary: in the folder `OSDISCO_TEST_SERVERS`, else on PATH."""
    folder = os.environ.get("OSDISCO_TEST_SERVERS")
    return (shutil.which(name, path=folder) if folder else None) or shutil.which(name)


class LocalServer(Server):
    """A server that is a process of this machine. `with` starts and stops it."""

    def __init__(self, name: str) -> None:
        binary = find_binary(name)
        if binary is None:
            raise FileNotFoundError(f"no {name} on PATH or in the folder that OSDISCO_TEST_SERVERS names")
        self._binary = binary
        self._port = free_port()
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Start, also again after `kill`, with the data of before; returns when it writes."""
        command = self.command()
        with self._log.open("ab") as log:
            self._guard = subprocess.Popen(  # nosec B603 # noqa: S603 - the servers that the developer has
                ["/bin/sh", "-c", _GUARD, "guard", str(self.access.folder), self._binary, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """End it as SIGKILL does; its data stays."""
        if self._guard is not None:
            self._guard.communicate(b"keep\n")
            self._guard = None

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and silent."""
        os.kill(self._pid, signal.SIGSTOP)
        wait_for(self._check_stopped, seconds=START_SECONDS)

    def unpause(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self._pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its files."""
        self.kill()
        self.access.cleanup()

    def logs(self) -> str:
        """Return what it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def death(self) -> str | None:
        """Return the end of its log if it is dead."""
        dead = _ON_LINUX and self._states() <= {"Z", "X"}  # elsewhere it shows by the time that runs out
        return self.logs()[-2000:] or "without a word" if dead else None

    def _check_stopped(self) -> None:
        """Raise until every thread stands still: the signal only asks them to."""
        if _ON_LINUX and self._states() != {"T"}:
            raise OSError("still running")

    def _states(self) -> set[str]:
        """Return the states of its threads, as the letters that the system has for them."""
        states = set()
        for path in Path(f"/proc/{self._pid}/task").glob("*/stat"):
            with suppress(OSError):  # that thread has ended meanwhile
                states.add(path.read_text().rpartition(")")[2].split()[0])
        return states

    @abstractmethod
    def command(self) -> list[str]:
        """Return the arguments."""

    @property
    def _log(self) -> Path:
        return self.access.folder / "log"


class EtcdProcess(LocalServer, EtcdServer):
    """An etcd of this machine.

    Args:
        tls: clients must talk TLS.
        auth: a user and a password are asked for.
        mtls: clients must show a certificate.
        flags: more of its command line.
    """

    def __init__(
        self, *, tls: bool = False, auth: bool = False, mtls: bool = False, flags: tuple[str, ...] = ()
    ) -> None:
        super().__init__("etcd")
        self.access = EtcdAccess(tls=tls, auth=auth, mtls=mtls)
        self._peer = free_port()
        self._flags = flags

    def command(self) -> list[str]:
        """Return the arguments."""
        command = etcd_command(
            self.access,
            name="n1",
            data=str(self.access.folder / "data"),
            client=self.address,
            advertised=self.address,
            peer=f"127.0.0.1:{self._peer}",
            peers={"n1": f"127.0.0.1:{self._peer}"},
            tls_folder=str(self.access.folder / "tls"),
        )
        return [*command[1:], *self._flags]


class ConsulProcess(LocalServer, ConsulServer):
    """A Consul server of this machine.

    Args:
        tls: clients must talk TLS.
        acl: a token is asked for.
        config: more of its configuration, over ours.
    """

    def __init__(self, *, tls: bool = False, acl: bool = False, config: dict[str, Any] | None = None) -> None:
        super().__init__("consul")
        self.access = ConsulAccess(tls=tls, acl=acl)
        self._ports = {"server": free_port(), "serf_lan": free_port(), "dns": free_port()}
        self._config = config or {}

    @property
    def dns_address(self) -> str:
        """`host:port` of its DNS, over TCP."""
        return f"127.0.0.1:{self._ports['dns']}"

    def command(self) -> list[str]:
        """Return the arguments."""
        folder = self.access.folder
        config = consul_config(self.access, data=str(folder / "data"), tls_folder=str(folder / "tls"))
        http, https = (-1, self._port) if self.access.tls else (self._port, -1)
        off = {"grpc": -1, "serf_wan": -1}
        config |= {"ports": {"http": http, "https": https, **off, **self._ports}}
        config |= {"node_name": "n1", "bootstrap_expect": 1, "bind_addr": "127.0.0.1"}
        return ["agent", f"-hcl={json.dumps(config | self._config)}"]
