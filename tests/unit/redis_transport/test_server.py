"""Clients as `Server` makes them; none of these connects."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from streams.redis.address import BrokerAddress
from streams.redis.errors import InvalidSettings
from streams.redis.server import Client, Server, close


def opened(*urls: str) -> Client:
    """The client for a broker URL, or for several."""
    return Server(BrokerAddress.parse(";".join(urls))).open()


def options(client: Client) -> dict[str, Any]:
    """What the client makes its connections with."""
    return client.connection_pool.connection_kwargs if isinstance(client, Redis) else client.connection_kwargs


@pytest.fixture
def query(tmp_path: Path) -> str:
    """Settings of TLS, with files that are there."""
    for name in ("authority", "client", "key"):
        (tmp_path / name).touch()
    return (
        f"ssl_ca_certs={tmp_path}/authority&ssl_certfile={tmp_path}/client&ssl_keyfile={tmp_path}/key"
        "&ssl_cert_reqs=optional&ssl_check_hostname=false"
    )


def assert_tls(found: dict[str, Any], folder: Path) -> None:
    """Every setting of TLS has arrived."""
    assert (found["ssl_ca_certs"], found["ssl_certfile"]) == (f"{folder}/authority", f"{folder}/client")
    assert (found["ssl_keyfile"], found["ssl_cert_reqs"]) == (f"{folder}/key", "optional")
    assert found["ssl_check_hostname"] is False


async def test_a_cluster_speaks_tls(query: str, tmp_path: Path) -> None:
    """Every node of a Cluster is spoken to with the same certificates, and the same user."""
    client = opened(f"rediss://me:secret@one:7000/0?cluster=true&{query}", "rediss://two:7001")
    assert isinstance(client, RedisCluster)
    assert_tls(options(client), tmp_path)
    assert (options(client)["username"], options(client)["password"]) == ("me", "secret")
    assert [(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()] == [
        ("one", 7000),
        ("two", 7001),
    ]
    await close(client)


async def test_sentinels_and_their_master_speak_tls(query: str, tmp_path: Path) -> None:
    """The Sentinels are asked over TLS too: in the clear they would name anybody the master."""
    client = opened(f"rediss://me:secret@one:26379/3?sentinel=main&{query}", "rediss://two:26380")
    assert isinstance(client, Redis)
    assert isinstance(client.connection_pool, SentinelConnectionPool)
    assert issubclass(client.connection_pool.connection_class, SentinelManagedSSLConnection)
    assert_tls(options(client), tmp_path)
    assert (options(client)["db"], options(client)["username"]) == (3, "me")
    watchers = client.connection_pool.sentinel_manager.sentinels
    assert [watcher.connection_pool.connection_kwargs["port"] for watcher in watchers] == [26379, 26380]
    for watcher in watchers:
        assert_tls(watcher.connection_pool.connection_kwargs, tmp_path)
    await close(client)


async def test_a_socket_in_the_file_system() -> None:
    """`unix://` names a socket by its path."""
    client = opened("unix:///run/valkey.sock?lease=1s")
    assert isinstance(client, Redis)
    assert issubclass(client.connection_pool.connection_class, UnixDomainSocketConnection)
    assert options(client)["path"] == "/run/valkey.sock"
    await close(client)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host?ssl_cert_reqs=none", "ssl_cert_reqs needs rediss://, not redis://"),
        ("rediss://host?ssl_cert_reqs=maybe", "ssl_cert_reqs='maybe' must be required, optional or none"),
        ("rediss://host?ssl_ca_certs=/not/there.pem", "ssl_ca_certs='/not/there.pem' must be a file that exists"),
        ("redis://host?cluster=true&sentinel=main", "cluster and sentinel exclude each other"),
    ],
)
def test_what_cannot_be_meant_fails_at_start(url: str, message: str) -> None:
    """A setting that would be ignored, or a file that is not there, is an error that names it."""
    with pytest.raises(InvalidSettings, match=message):
        opened(url)
