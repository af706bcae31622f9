"""This module reads the broker URL for the transport and for clients that only write.

    redis://user:password@host:6379/0?lease=15s                       a server
    redis://:password@one:26379;two:26379/0?sentinel=mymaster         a master, found by asking Sentinels
    redis://user:password@one:7000;two:7000?cluster=true              a Cluster, found by asking nodes
    unix:///run/valkey.sock?db=2                                      a server on this machine

Several hosts are separated by `;` or `,`; user, password, database and query may stand with any one of them. A part
that is unknown, malformed or ambiguous is an error that names it. Nothing here needs Faust, redis-py or yarl.

A wrong URL often reaches something: a port that speaks TLS, or does not; a server without that database or password;
no Sentinel; no Redis at all. Its answer alone says little to who wrote the URL, so this says which part of it to mend.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from .errors import InvalidSettings
from .settings import RedisSettings

__all__ = ["BrokerAddress", "advice_on", "tls_advice"]

_LOOK_S: Final = 1.0

# By a part of what redis-py says of the server's answer, or of the network's.
_ADVICE: Final[Mapping[str, str]] = {
    "unknown command 'SENTINEL'": "it is no Sentinel: name the Sentinels and their ports, or remove sentinel=",
    "unknown command `SENTINEL`": "it is no Sentinel: name the Sentinels and their ports, or remove sentinel=",
    "No master found for": "sentinel= is the name that the Sentinels have for their master",
    "Cluster mode is not enabled": "it is no node of a Cluster: remove cluster=true",
    "cluster support disabled": "it is no node of a Cluster: remove cluster=true",
    "MOVED ": "it is a node of a Cluster: add cluster=true",
    "SELECT is not allowed in cluster mode": "it is a node of a Cluster: write /0, and cluster=true",
    "DB index is out of range": "it has no such database: write /0 behind the port",
    "Only 0th database": "it has no such database: write /0 behind the port",
    "invalid DB index": "it has no such database: write /0 behind the port",
    "without any password configured": "it has no password: remove what stands before the @",
    "no password is set": "it has no password: remove what stands before the @",
    "invalid username-password pair": "check user and password, with %2C %2F %3A %3B %40 for , / : ; @",
    "invalid password": "check the password, with %2C %2F %3A %3B %40 for , / : ; @",
    "WRONGPASS": "check user and password, with %2C %2F %3A %3B %40 for , / : ; @",
    "Authentication required": "it wants a password: write :PASSWORD@ or USER:PASSWORD@ before the host",
    "as reply type byte": "no Redis listens there: check host and port",
    "WRONG_VERSION_NUMBER": "it speaks no TLS: write redis://, or the port that does",
    "RECORD_LAYER_FAILURE": "it speaks no TLS: write redis://, or the port that does",
    "CERTIFICATE_REQUIRED": "it wants a certificate of its clients: add ssl_certfile= and ssl_keyfile=",
    "Temporary failure in name resolution": "its name cannot be looked up now: check the host and this machine's DNS",
    "max daily request limit": "the service's plan is used up for today: raise its limit",
    "max requests limit": "the service's plan is used up: raise its limit",
    "Name or service not known": "there is no such host: check its name",
    "nodename nor servname": "there is no such host: check its name",
    "No address associated": "there is no such host: check its name",
}


def advice_on(error: object) -> str:
    """Return the advice on an error as the end of a sentence, or nothing."""
    text = str(error)
    found = next((advice for part, advice in _ADVICE.items() if part in text), None)
    return _said(found) if found else ""


def _said(advice: str) -> str:
    return f" (broker URL: {advice})"


async def tls_advice(host: str, port: int, *, tls: bool) -> str:
    """Ask a port that does not answer whether it speaks TLS, against the URL.

    Returns:
        The advice as the end of a sentence; empty if the URL is right about TLS, or the port tells nothing.
    """
    if tls and await _speaks_plain(host, port):
        return _said("it speaks no TLS: write redis://, or the port that does")
    if not tls and await _speaks_tls(host, port):
        return _said("it speaks TLS alone: write rediss://")
    return ""


async def _speaks_plain(host: str, port: int) -> bool:
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_LOOK_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readexactly(1) in {b"+", b"-"}
            finally:
                writer.transport.abort()
    return False


async def _speaks_tls(host: str, port: int) -> bool:
    # Nothing is sent through it, so it does not matter who it is.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LOOK_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.transport.abort()
            return True
    return False


_SCHEMES = ("redis", "rediss", "unix")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")  # yarl, and so Faust, writes unix:/path for unix:///path
_PORT = 6379
_SENTINEL_PORT = 26379


# What people paste in a URL's place, and what it is.
_PASTED = {
    r".*(\$\{?\w+\}?$|\$[{(]\w+[})]|\{\{|<\w[\w-]*>|\[YOUR-)": "holds a placeholder that was not filled in; fill it in",
    r"[\w.-]+:\d+,.*=": "is .NET's; write rediss://:PASSWORD@HOST:PORT, with %2B %2F %3D for + / =",
    r"(export\s+|set\s+|env\s+)*\w+\s*(=|:\s)": "begins with a variable's name; keep what is behind that",
    r"(redis|valkey)-cli\b": "is a command of redis-cli's; keep the URL behind -u, and write rediss:// for --tls",
    r"[\w.-]+:\d+$": "has no scheme: it must begin with redis://, or rediss:// with TLS",
}


# Schemes of other clients and services, by a part of them.
_OF_OTHERS = {
    "http": " (the service has an address for it beside that for HTTP)",
    "sentinel": ", with the Sentinels' hosts and ?sentinel=<master's name>",
    "cluster": ", with ?cluster=true",
    "unix": " alone",
    "sock": ", as in unix:///run/valkey.sock",
}


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """An address holds the broker's place, its login, and the transport's settings."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    socket: str | None = None
    """The path of `unix://`."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    settings: RedisSettings

    @classmethod
    def parse(cls, text: str) -> BrokerAddress:
        """Read a broker URL.

        Raises:
            InvalidSettings: a part of it is malformed, unknown, said twice, or means nothing here; the message says
                which, and never holds a password.
        """
        _refuse_pasted(text.strip())
        parts = [_split(part) for part in _with_scheme(re.split("[,;]", text.strip()))]
        scheme = _one("scheme", {part.scheme for part in parts}) or ""
        if scheme not in _SCHEMES:
            hint = next((hint for part, hint in _OF_OTHERS.items() if part in scheme), "")
            raise InvalidSettings(
                f"broker URL: {scheme}:// is not Redis; write redis:// (Valkey too), rediss:// with TLS, or unix://{hint}"
            )
        pairs = [pair for part in parts for pair in parse_qsl(part.query, keep_blank_values=True)]
        # A socket's path leaves no place for it.
        own = [value for name, value in pairs if scheme == "unix" and name == "db"]
        pairs = [pair for pair in pairs if scheme != "unix" or pair[0] != "db"]
        settings = RedisSettings.from_query(scheme, pairs)
        username, password = _credentials(parts)
        if scheme == "unix":
            return cls(
                scheme=scheme,
                socket=_socket(parts),
                database=_number(_one("database", set(own)) or "0"),
                username=username,
                password=password,
                settings=settings,
            )
        default_port = _SENTINEL_PORT if settings.sentinel else _PORT
        hosts = tuple(_host(part, default_port) for part in parts)
        if len(hosts) > 1 and not (settings.sentinel or settings.cluster):
            raise InvalidSettings("broker URL: several hosts need sentinel=<master's name> or cluster=true")
        database = _database(parts)
        if settings.cluster and database:
            raise InvalidSettings(f"broker URL: a Cluster has no database but 0, not /{database}")
        return cls(
            scheme=scheme, hosts=hosts, database=database, username=username, password=password, settings=settings
        )


def _refuse_pasted(text: str) -> None:
    for pasted, what in _PASTED.items():
        if re.match(pasted, text, re.IGNORECASE | re.DOTALL):
            raise InvalidSettings(f"broker URL: it {what}")


def _with_scheme(parts: Sequence[str]) -> list[str]:
    """Give each host the scheme of the first, as Faust does."""
    begin = _SCHEME.match(parts[0])
    if parts[0].count("://") > 1:
        raise InvalidSettings("broker URL: it has :// twice; keep one of the two")
    if parts[0][:1] in {"'", '"', "`"}:
        raise InvalidSettings("broker URL: it is in quotation marks; leave them out")
    if len(parts) > 1 and not all(parts):
        raise InvalidSettings("broker URL: it has an empty host; remove the , or ; that nothing stands beside")
    if begin is None:
        raise InvalidSettings("broker URL: it must begin with redis://, rediss:// or unix://")
    return [part if _SCHEME.match(part) else f"{begin[1]}://{part}" for part in parts]


def _split(part: str) -> SplitResult:
    try:
        split = urlsplit(part)
    except ValueError as error:
        raise InvalidSettings(f"broker URL: {error}; in a password write %5B %5D for [ ]") from None
    if split.fragment and split.scheme in _SCHEMES:
        raise InvalidSettings("broker URL: it has a '#'; write %23 for one in a password")
    return split


def _host(part: SplitResult, default_port: int) -> tuple[str, int]:
    try:
        port = part.port
    except ValueError:
        raise InvalidSettings(
            "broker URL: a port must be a number up to 65535; in a password write %2C, %2F, %3A, %3B, %40 for , / : ; @"
        ) from None
    host = part.hostname
    if not host:
        raise InvalidSettings(
            f"broker URL: it has no host; write {part.scheme}://HOST:{port or default_port}, or 127.0.0.1 as the host "
            "if it is this machine"
        )
    if port == 0 or re.fullmatch(r"[\w.:%-]+", host) is None:
        raise InvalidSettings(f"broker URL: {host!r} is not a host, or its port is 0")
    return unquote(host), port or default_port


def _credentials(parts: Iterable[SplitResult]) -> tuple[str | None, str | None]:
    found = {(part.username, part.password) for part in parts if part.username or part.password}
    if len(found) > 1:
        raise InvalidSettings("broker URL: its hosts have different users or passwords; give them once")
    username, password = next(iter(found), (None, None))
    if username and not password:
        raise InvalidSettings(
            "broker URL: it has a user without a password; with a password alone write :password@host, and %2C %3B for "
            ", ; in it"
        )
    return (unquote(username) if username else None), (unquote(password) if password else None)


def _database(parts: Iterable[SplitResult]) -> int:
    return _number(_one("database", {part.path.strip("/") for part in parts} - {""}) or "0")


def _number(path: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", path):
        raise InvalidSettings(f"broker URL: the database must be a number, as in redis://host/0, not {path!r}")
    return int(path)


def _socket(parts: Sequence[SplitResult]) -> str:
    path = unquote(parts[0].path)
    if len(parts) > 1 or not path.strip("/") or parts[0].hostname:
        raise InvalidSettings("broker URL: unix:// needs the path of one socket, as in unix:///run/valkey.sock")
    return path


def _one(what: str, found: set[str]) -> str | None:
    if len(found) > 1:
        raise InvalidSettings(f"broker URL: more than one {what}: {', '.join(sorted(found))}")
    return next(iter(found), None)
