"""A server runs as a child process: started, stopped, killed, or restarted on its port.

A kill is as by a crash, and a restart keeps the data.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local.processes import (
    GuardedProcess,
    LocalServerError,
    ServerFailed,
    free_port,
    is_temporary,
    new_folder,
    remove_folder,
)
from infra.ports import PortTaken, require_free

# Another process may take a free port between our look and the server's bind.
_PORT_TRIES = 5


class Server(ABC):
    """A running server can be stopped, killed or restarted on the same port and data."""

    name: str

    def __init__(
        self,
        data_dir: Path | None,
        *,
        port: int | None,
        port_setting: str,
        remove_data: bool | None,
        env: Mapping[str, str] | None,
        in_memory: bool = False,
    ) -> None:
        """Start the server and wait until it answers."""
        self.data_dir = (data_dir or new_folder(f"teamfit-{self.name}-", in_memory=in_memory)).resolve()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        empty = next(self.data_dir.iterdir(), None) is None
        if remove_data is None:
            # Only what was empty: a mistaken path must not cost anyone their files.
            remove_data = empty and is_temporary(self.data_dir)
        self._remove_data = remove_data
        self._port_setting = port_setting
        self._env = env
        self._process: GuardedProcess | None = None
        try:
            self._prepare()
            self.port = self._start(port)
        except BaseException:
            self.stop()
            raise

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the URL that a client connects to."""

    @property
    def pid(self) -> int:
        """The server's process ID, a new one after each restart."""
        if self._process is None:
            message = f"{self.name} is stopped"
            raise LocalServerError(message)
        return self._process.pid

    @property
    def log(self) -> Path:
        """The file that the server writes its log to."""
        return self.data_dir / "server.log"

    @property
    def running(self) -> bool:
        """Return true while the server's process lives."""
        return self._process is not None and self._process.running

    @property
    def ending(self) -> str:
        """Return how the server's process ended, for people to read."""
        return "is stopped" if self._process is None else self._process.ending

    def stop(self) -> None:
        """End the server in good order; remove temporary data. Repeating this does nothing."""
        self._end(crash=False)
        self._cleanup()
        if self._remove_data:
            remove_folder(self.data_dir)

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would; the data stays for a `restart`."""
        self._end(crash=True)

    def restart(self) -> None:
        """Start again on the same port and data. A running server is stopped in good order first."""
        self._end(crash=False)
        self._launch(self.port)

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder ready for a first start."""

    @abstractmethod
    def _spawn(self, port: int) -> GuardedProcess:
        """Start the process."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the server answers."""

    def _end(self, *, crash: bool) -> None:
        if self._process is not None:
            if crash:
                self._process.kill()
            else:
                self._process.stop()
            self._process = None

    @abstractmethod
    def _cleanup(self) -> None:
        """Give back what outlives the process elsewhere than in the data folder."""

    def _start(self, port: int | None) -> int:
        if port is not None:
            self._launch(port)
            return port
        for _ in range(_PORT_TRIES - 1):
            candidate = free_port()
            with suppress(PortTaken):
                self._launch(candidate)
                return candidate
        candidate = free_port()
        self._launch(candidate)
        return candidate

    def _launch(self, port: int) -> None:
        require_free(port, self._port_setting)
        self.port = port
        self.log.unlink(missing_ok=True)
        self._process = self._spawn(port)
        try:
            self._process.wait_ready(self._ready)
        except ServerFailed as error:
            if error.port_in_use:
                raise PortTaken(port, self._port_setting) from error
            raise
