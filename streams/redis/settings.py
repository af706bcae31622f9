"""The transport's settings, read from the broker URL's query.

    redis://127.0.0.1:6379/0?lease=15s&max_deliveries=5&dead_letter_topic=dead-letters

Times take a unit (`250ms`, `15s`, `10m`, `2h`, `7d`; a bare number is seconds), sizes too (`512k`, `64m`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from .errors import InvalidSettings

__all__ = ["RedisSettings"]

_TIME_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_LONGEST_S = 3650 * 86400.0  # beyond it a time would leave the calendar
_MOST_PARTITIONS = 1_000
_LONGEST_NUMBER = 18  # digits
_SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", text)
    if match is None:
        raise ValueError("a time such as 250ms, 15s, 10m, 2h or 7d")
    seconds = float(match[1]) * _TIME_UNITS[match[2]]
    if seconds > _LONGEST_S:
        raise ValueError("a time of 3650d at most")
    return timedelta(seconds=seconds)


def _positive(text: str) -> timedelta:
    value = _duration(text)
    if value <= timedelta(0):
        raise ValueError("a time above zero, such as 15s")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER or int(text) < 1:
        raise ValueError("a whole number above zero")
    return int(text)


def _several(text: str) -> int:
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER or int(text) < 2:  # noqa: PLR2004 - it says so itself
        raise ValueError("a whole number above one")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)([kmg]?)(?:i?b)?", text.lower())
    if match is None or len(match[1]) > _LONGEST_NUMBER:
        raise ValueError("a size such as 512k or 64m")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def _switch(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise ValueError("true or false")
    return text.lower() in {"true", "1", "yes"}


def _text(text: str) -> str:
    if not text:
        raise ValueError("some text")
    return text


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError("a file that exists")
    return text


def _verification(text: str) -> str:
    text = text.lower().removeprefix("cert_")  # as Celery and `ssl` have it
    if text not in {"required", "optional", "none"}:
        raise ValueError("required, optional or none")
    return text


def _by_topic(text: str) -> tuple[str, int]:
    topic, _, number = text.rpartition(":")
    if not topic:
        raise ValueError("<topic>:<number>")
    count = _count(number)
    if count > _MOST_PARTITIONS:
        raise ValueError(f"<topic>:<number>, with {_MOST_PARTITIONS} at most")
    return topic, count


def _topic_groups(text: str) -> tuple[str, tuple[str, ...]]:
    topic, *groups = text.split(":")
    if not topic or not groups or not all(groups):
        raise ValueError("<topic>:<group>:<group>…")
    return topic, tuple(groups)


def _setting(default: Any, parse: Callable[[str], Any], *, many: bool = False, secret: bool = False) -> Any:
    metadata = {"parse": parse, "many": many, "secret": secret}
    if many:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """Everything that can be set, with defaults that suit most agents.

    Each field is a parameter of the broker URL's query.
    """

    lease: timedelta = _setting(timedelta(seconds=15), _positive)
    """How long a silent worker keeps its entries. Longer: slower recovery after a crash. Shorter: an agent that blocks
    the event loop for two thirds of it loses its work to another worker."""

    scan: timedelta = _setting(timedelta(seconds=1), _positive)
    """How often a worker looks again while entries are silent whose lease has run out or is about to; at least twice a
    lease. Longer: fewer commands. Shorter: what cannot be taken over at once is taken sooner."""

    max_deliveries: int = _setting(5, _several)
    """How often an entry is handed over before it counts as poison; the last time alone, so there must be two. Higher:
    a passing fault costs fewer dead letters. Lower: an entry that kills its worker does so less often, and more of its
    neighbours must be tried alone."""

    dead_letter_topic: str = _setting("dead-letters", _text)
    """Where poison entries go, with their bytes and the reason."""

    drain: timedelta = _setting(timedelta(seconds=10), _duration)
    """How long a stopping worker waits for work that agents have started. Longer: less work is done twice after a
    deployment. Shorter: faster stops. What is not done by then is handed to the other workers."""

    prefetch: int = _setting(1000, _count)
    """The most entries of one topic that wait in a worker for an agent. The transport keeps about 50 ms of the agent's
    work ready and never more than this. Higher: a little more throughput for agents that only pass events on.
    Lower: less memory for large events."""

    max_unacknowledged: int = _setting(10_000, _count)
    """The most entries of one topic that a worker holds in all, started ones included. It bounds agents that take
    events and never acknowledge them."""

    ack_linger: timedelta = _setting(timedelta(milliseconds=50), _duration)
    """How long an acknowledgement waits for company. Longer: fewer, larger commands. Shorter: fewer events are repeated
    after a `kill -9`."""

    retention: timedelta = _setting(timedelta(minutes=10), _duration)
    """How long an entry stays after every group has acknowledged it, for topics that do not set their own `retention`.
    Longer: more memory; a group that joins late finds more. Zero: trimmed at once."""

    trim_interval: timedelta = _setting(timedelta(seconds=5), _positive)
    """How often acknowledged entries are trimmed, at most: ten times in a topic's retention are enough."""

    groups: Mapping[str, tuple[str, ...]] = _setting(None, _topic_groups, many=True)
    """Groups that must see every entry of a topic though they may not have started yet:
    `groups=job-requests:quota:projection`, repeated for each topic. A topic's own `config={"groups": [...]}` does the
    same. They are created at the beginning of the stream, so nothing is trimmed before they have acknowledged it."""

    partitions: Mapping[str, int] = _setting(None, _by_topic, many=True)
    """Partitions by topic, `partitions=orders:4`, repeated for each. Producers and consumers must agree on it."""

    prefix: str = _setting("", _text)
    """Put before every key that this transport touches."""

    send_buffer: int = _setting(10_000, _count)
    """The most entries that wait to be written; a send beyond it waits. Higher: larger bursts are absorbed."""

    send_buffer_bytes: int = _setting(64 * 1024**2, _size)
    """As `send_buffer`, in bytes."""

    leader_ttl: timedelta = _setting(timedelta(seconds=10), _positive)
    """How long a silent leader stays the leader. Shorter: leader-only timers resume sooner after a crash."""

    block: timedelta = _setting(timedelta(seconds=2), _positive)
    """How long one read waits on an idle stream."""

    timeout: timedelta = _setting(timedelta(seconds=5), _positive)
    """How long the server may take to answer, or to accept a connection, before it counts as away."""

    cluster: bool = _setting(default=False, parse=_switch)
    """The URL names nodes of a Redis Cluster."""

    sentinel: str | None = _setting(None, _text)
    """The URL names Sentinels, and this is the master's name."""

    sentinel_username: str | None = _setting(None, _text)
    """The user that the Sentinels know, with `sentinel_password`. Unset: the password belongs to no named user."""

    sentinel_password: str | None = _setting(None, _text, secret=True)
    """The Sentinels' password, where it is not the master's. Unset: they are given the URL's own user and password, and
    asked without any if they refuse those."""

    ssl_ca_certs: str | None = _setting(None, _file)
    """With `rediss://`, the file of certificate authorities to trust. Unset: those that the system trusts."""

    ssl_certfile: str | None = _setting(None, _file)
    """The client certificate, for a server that asks for one."""

    ssl_keyfile: str | None = _setting(None, _file)
    """The client certificate's key. Unset: it is in the certificate's file."""

    ssl_cert_reqs: str = _setting("required", _verification)
    """`none` takes whatever certificate the server shows, and so whoever answers in its place."""

    ssl_check_hostname: bool = _setting(default=True, parse=_switch)
    """Whether the server's certificate must be for the host in the URL."""

    @property
    def tls(self) -> dict[str, Any]:
        """Return the TLS options for redis-py, which has the same names."""
        return {
            "ssl_ca_certs": self.ssl_ca_certs,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
            "ssl_cert_reqs": self.ssl_cert_reqs,
            "ssl_check_hostname": self.ssl_check_hostname,
        }

    @classmethod
    def from_query(cls, scheme: str, pairs: Iterable[tuple[str, str]]) -> RedisSettings:
        """Read the names and values of a broker URL's query.

        Raises:
            InvalidSettings: a parameter is unknown, malformed, said twice, or means nothing here; the message names it.
        """
        values: dict[str, Any] = {}
        for name, text in pairs:
            _read(values, scheme, name, text)
        if values.get("cluster") and "sentinel" in values:
            raise InvalidSettings("broker URL: cluster and sentinel exclude each other")
        for name in ("sentinel_username", "sentinel_password"):
            if name in values and "sentinel" not in values:
                raise InvalidSettings(f"broker URL: {name} needs sentinel=<master's name>")
        if "sentinel_username" in values and "sentinel_password" not in values:
            raise InvalidSettings("broker URL: sentinel_username needs sentinel_password")
        return cls(**values)


# Parameters that other clients take, and where ours has them.
_OTHER_CLIENTS: Final = {
    "db": "write the database behind the host, as in redis://host/2",
    "socket_timeout": "write timeout=",
    "socket_connect_timeout": "write timeout=",
    "sentinelmasterid": "write sentinel=<master's name>",
    "sentinel_master": "write sentinel=<master's name>",
    "master_name": "write sentinel=<master's name>",
    "mastername": "write sentinel=<master's name>",
    "service_name": "write sentinel=<master's name>",
    "insecureskipverify": "write ssl_cert_reqs=none",
    "skip_verify": "write ssl_cert_reqs=none",
    "ssl": "write rediss:// for TLS",
    "tls": "write rediss:// for TLS",
    "protocol": "remove it, the transport chooses",
    "password": "write it before the host, as in redis://user:password@host",
    "username": "write it before the host, as in redis://user:password@host",
}


def _read(values: dict[str, Any], scheme: str, name: str, text: str) -> None:
    """Put one parameter of the query into `values`.

    Raises:
        InvalidSettings: it cannot be meant.
    """
    known = {item.name: item for item in fields(RedisSettings)}
    item = known.get(name)
    if item is None and "@" in name:
        # Not repeated: it may be the end of a password.
        raise InvalidSettings("broker URL: it has an @ behind its ?; in a password write %3F for ?")
    if item is None:
        meant = get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(sorted(known))}"
        hint = _OTHER_CLIENTS.get(name.lower(), hint)
        raise InvalidSettings(f"broker URL: unknown parameter {name!r}; {hint}")
    if name.startswith("ssl_") and scheme != "rediss":
        raise InvalidSettings(f"broker URL: {name} needs rediss://, not {scheme}://")
    if name in ("sentinel", "cluster") and scheme == "unix":
        raise InvalidSettings(f"broker URL: {name} needs redis:// or rediss://, not {scheme}://")
    try:
        value = item.metadata["parse"](text)
    except ValueError as error:
        shown = "" if item.metadata["secret"] else f"={text!r}"
        raise InvalidSettings(f"broker URL: {name}{shown} must be {error}") from None
    if item.metadata["many"]:
        by_topic = values.setdefault(name, {})
        if value[0] in by_topic:
            raise InvalidSettings(f"broker URL: {name} is given twice for the topic {value[0]!r}")
        by_topic[value[0]] = value[1]
    elif name in values:
        raise InvalidSettings(f"broker URL: {name} is given twice")
    else:
        values[name] = value
