"""A child process that never outlives the one that started it.

The kernel's "signal on the parent's death" is tied to the thread that forked, and a server started from a worker thread
would die with that thread. So each child gets a watchdog instead: a `sh` that blocks on a pipe whose other end this
process alone holds. The pipe closes however this process ends, SIGKILL included; then the watchdog ends the child and
removes its files. Both live in sessions of their own, so a Ctrl-C in the terminal reaches the parent alone, which then
stops things in its own order.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

from infra.errors import TeamfitError

HOST = "127.0.0.1"
# Each process has a block of its own, as long as few of them start servers at once, and goes round in it.
_FIRST_PORT = 12_000
_BLOCK = 400
_BLOCKS = 50
_drawn = count(secrets.randbelow(_BLOCK))
_MEMORY = Path("/dev/shm")  # noqa: S108 - Linux's file system in memory
_ROOM_IN_MEMORY = 8 << 30  # four runners of tests have two servers each, with logs of up to a GiB

# Reads the child's process ID, then until the pipe closes. "stopped" instead means that the child was stopped in order,
# and there is nothing left to do.
_WATCHDOG = """
read -r child
[ "$child" = stopped ] && exit 0
if [ -n "$child" ]; then
    read -r _ && exit 0
    kill -s "$1" "$child" 2>/dev/null
    n=0
    while kill -s 0 "$child" 2>/dev/null && [ "$n" -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
    kill -s KILL "$child" 2>/dev/null
fi
[ -n "$2" ] && rm -rf -- "$2"
"""

# The child gives its process ID to the watchdog by itself, before it becomes the program that was asked for. If that
# were left to this process, a SIGKILL right after the start would leave a child behind that no process watches.
_CHILD = 'echo "$$" >&0; exec "$@" </dev/null'


class LocalServerError(TeamfitError):
    """The root of all errors of embedded servers except a taken port (`infra.ports`).

    LocalServerError
    ├── EmbeddedPartsMissing   the `embedded` extra is not installed
    └── ServerFailed           the server ended, or did not answer in time; carries the end of its log
    """


class EmbeddedPartsMissing(LocalServerError):
    """The embedded servers come with an extra that is not installed."""

    def __init__(self, part: str) -> None:
        """Name the missing part and the command that brings it."""
        super().__init__(f"{part} is not installed: pip install 'teamfit-pipeline[embedded]'")


class ServerFailed(LocalServerError):
    """The server ended by itself, or was not ready before its deadline."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        """Carry the end of the server's log, which says more than the exit code."""
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
        self.port_in_use = "already in use" in tail
        super().__init__(f"{name} {what}; the end of {log}:\n{tail}")


@dataclass(frozen=True)
class Account:
    """A system account that a child process runs as. Only a root process can switch to one."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the account for servers that refuse root; None if this process is not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    message = "running as root needs an account named postgres or nobody for the database; neither exists"
    raise LocalServerError(message)


def free_port() -> int:
    """Return a port that was free a moment ago, another one each time.

    Processes that ask at the same time get different ones, unless their IDs are a multiple of 50 apart. It is none of
    those that the system gives to outgoing connections (from 32768 on Linux, from 49152 elsewhere): each connection on
    this machine may take one of them before whoever asked here comes to bind it.

    Raises:
        OSError: none was found.
    """
    block = _FIRST_PORT + os.getpid() % _BLOCKS * _BLOCK
    for _ in range(_BLOCK):
        port = block + next(_drawn) % _BLOCK
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise OSError(f"no free port was found on {HOST} between {block} and {block + _BLOCK - 1}")


class GuardedProcess:
    """One child with its watchdog. Starts at once; `stop` and `kill` may be repeated."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        log: Path,
        stop_signal: signal.Signals,
        account: Account | None = None,
        remove_on_death: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the child and its watchdog.

        Args:
            command: the program and its arguments.
            name: how messages call it.
            log: where both output streams are appended.
            stop_signal: what asks it to end in good order.
            account: who it runs as, when this process is root.
            remove_on_death: a folder that the watchdog removes if this process dies without stopping the child.
            env: its whole environment; this process's own by default.
        """
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        self._watchdog: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - a fixed script, arguments apart
            # QUIT rather than the polite signal: Postgres then frees its shared memory without waiting for clients.
            ["/bin/sh", "-c", _WATCHDOG, "sh", "QUIT" if stop_signal == signal.SIGINT else "TERM"]
            + [str(remove_on_death or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with log.open("ab") as output:
            self._child: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - a fixed script, arguments apart
                ["/bin/sh", "-c", _CHILD, "sh", *command],
                stdin=self._watchdog.stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=env,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )

    @property
    def pid(self) -> int:
        """The child's process ID."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Return true while the child lives."""
        return self._child.poll() is None

    @property
    def ending(self) -> str:
        """Return how the child ended, for people to read."""
        code = self._child.poll()
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with code {code}"

    def wait_ready(self, ready: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
        """Wait until `ready` says so; the child is ended if it does not.

        Raises:
            ServerFailed: the child ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                self._release_watchdog()
                raise ServerFailed(self.name, self.ending, self.log)
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(self.name, f"was not ready after {timeout_s:.0f} s", self.log)
            time.sleep(0.01)

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Ask the child to end, and kill it if it has not within the time."""
        if self.running:
            self._child.send_signal(self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End the child by SIGKILL and take its exit code."""
        if self.running:
            self._child.kill()
        self._child.wait()
        self._release_watchdog()

    def _release_watchdog(self) -> None:
        if self._watchdog.returncode is None:
            pipe: IO[bytes] | None = self._watchdog.stdin
            if pipe is not None:
                with suppress(BrokenPipeError):  # someone ended the watchdog from outside
                    pipe.write(b"stopped\n")
                    pipe.close()
            self._watchdog.wait()


def new_folder(prefix: str, *, in_memory: bool) -> Path:
    """Make a temporary folder, in memory if that is asked for.

    A machine that has less than 8 GiB of room for files in memory gets it on the disk.
    """
    spacious = in_memory and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_IN_MEMORY
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if spacious else None))


def is_temporary(folder: Path) -> bool:
    """Return whether a folder lies where temporary files do, on the disk or in memory."""
    return any(root in folder.parents for root in (Path(tempfile.gettempdir()).resolve(), _MEMORY))


def remove_folder(folder: Path) -> None:
    """Remove a server's folder. A file that the server's last process deletes meanwhile is no error."""
    shutil.rmtree(folder, ignore_errors=True)
