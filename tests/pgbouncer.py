"""PgBouncer in transaction mode before a running PostgreSQL: Debian's program, where the machine has it."""

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.local.processes import HOST, GuardedProcess, free_port, remove_folder, unprivileged_account


def _version(program: str) -> tuple[int, ...]:
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in printed.split()[1].split("."))


PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
VERSION = (0,) if PROGRAM is None else _version(PROGRAM)
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer on this machine: apt-get install pgbouncer")

FORGETS_STATEMENTS = {} if VERSION < (1, 21) else {"max_prepared_statements": "0"}
TRACKS_STATEMENTS = pytest.mark.skipif(VERSION < (1, 21), reason="pgbouncer before 1.21 tracks no named statements")


@contextmanager
def pgbouncer(database_url: str, *, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a pooler before a database; yields the URL through it.

    Args:
        database_url: the server's own.
        settings: more of the pooler's own settings, or others than ours.
    """
    assert PROGRAM is not None
    server, port, account = urlsplit(database_url), free_port(), unprivileged_account()
    database = server.path.removeprefix("/")
    folder = Path(tempfile.mkdtemp(prefix="teamfit-pgbouncer-"))
    folder.chmod(0o755)  # the pooler refuses to run as root
    ours = {
        "listen_addr": HOST,
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": "5",
        "max_client_conn": "500",
        # Servers in turn, so that a statement kept on one of them is missed at once.
        "server_round_robin": "1",
    }
    lines = [f"{name} = {value}" for name, value in (ours | dict(settings or {})).items()]
    address = f"host={server.hostname} port={server.port} dbname={database} user={server.username}"
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{database} = {address} password={server.password}\n[pgbouncer]\n" + "\n".join(lines)
    )
    process = GuardedProcess(
        [PROGRAM, str(folder / "pgbouncer.ini")],
        name="pgbouncer",
        log=folder / "pgbouncer.log",
        stop_signal=signal.SIGTERM,
        account=account,
        remove_on_death=folder,
    )

    def listens() -> bool:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        return False

    try:
        process.wait_ready(listens)
        yield f"postgresql://pooled:any@{HOST}:{port}/{database}"
    finally:
        process.stop()
        remove_folder(folder)
