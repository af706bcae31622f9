"""This reads `DATABASE_URL` for every part of the pipeline.

Migrations, workers, API, commands and the local stack use it.

It takes what libpq takes and what managed Postgres services hand out. Nothing of it reaches the server unread: a
parameter of somebody else's driver is ignored with a warning, because a platform makes the URL and its owner cannot
change it. A parameter that looks like one of ours, or speaks of TLS, is refused instead: ignoring a misspelt `sslmode`
would send passwords in the clear.
"""

import difflib
import getpass
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

import structlog

from infra.errors import InvalidSetting

log = structlog.get_logger(__name__)

VARIABLE: Final = "DATABASE_URL"
CONNECT_S: Final = 10.0
"""How long connecting may take, unless `connect_timeout` says otherwise."""

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
_DEFAULT_PORT = 5432
_LAST_PORT = 65_535
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSIONS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
_OF_JAVA = {"targetservertype": "target_session_attrs", "secondary": "standby"}
# What asyncpg reads by itself, given as a URL of nothing else.
_FOR_ASYNCPG = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "passfile", "krbsrvname", "gsslib"),
)
_QUOTES = ("'", '"', "`", "\N{LEFT SINGLE QUOTATION MARK}", "\N{LEFT DOUBLE QUOTATION MARK}")
# What people paste in a URL's place, and what it is.
_PASTED = {
    r"psql\b": "is a command of psql's; keep what is within its quotation marks",
    r"(export\s+|set\s+|env\s+)*\w+\s*(=|:\s)\s*['\"]?postgres": "repeats its own name, or another's; keep the rest",
    r"\$\{?\w+\}?$|\$\(\w+\)$|\{\{": "holds a placeholder that was not filled in; write what it stands for",
    r"jdbc:": "is an address for JDBC",
    r"(host|user|dbname|port)\s*=": "is a list of parameters, not a URL",
}
# What templates and examples of services hold.
_PLACEHOLDER = re.compile(r"\$\{\w+\}|\$\(\w+\)|\{\{|<\w[\w-]*>|\[YOUR-", re.IGNORECASE)
# Switches of the server, as `-c name=value`; and `name=value` alone, which poolers of managed services read.
_VALUE = r"(?:[^\s\\]|\\.)*"
_OPTIONS = re.compile(
    rf"(?:\s*(?:-c\s*[\w.]+={_VALUE}|--[\w.-]+={_VALUE}|[\w.-]+={_VALUE}|-[A-Zabd-z]\S*(?:\s+\w+)?)(?=\s|$))*\s*"
)
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
# A pooler refuses those that it does not know, so no more than these are sent.
_SERVER_SETTINGS = ("application_name", "options", "search_path")
_PLACES = ("host", "port", "user", "password", "dbname", "database")
_STATEMENT_CACHES = ("statement_cache_size", "prepared_statement_cache_size", "prepare_threshold", "preparethreshold")
_OURS = ("connect_timeout", "service", "target_session_attrs", "pgbouncer", "ssl", "requiressl", *_STATEMENT_CACHES)
# libpq's own that mean nothing to asyncpg. `channel_binding` is the one that managed services set.
_WITHOUT_EFFECT = (
    *("channel_binding", "client_encoding", "fallback_application_name", "gssencmode", "gssdelegation", "hostaddr"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "load_balance_hosts"),
    *("max_protocol_version", "min_protocol_version", "replication", "require_auth", "requirepeer"),
    *("sslcertmode", "sslcompression", "sslcrldir", "sslkeylogfile", "sslsni", "tcp_user_timeout"),
)
# Go's, which look like ours.
_OF_PGX = ("statement_cache_mode", "statement_cache_capacity", "description_cache_capacity")
_KNOWN = (*_FOR_ASYNCPG, *_SERVER_SETTINGS, *_PLACES, *_OURS, *_WITHOUT_EFFECT)
_YES, _NO = ("true", "1", "yes", "on", "t"), ("", "false", "0", "no", "off", "f")
_ENCODE = "write : / ? # [ ] @ % of the user's name and the password as %3A %2F %3F %23 %5B %5D %40 %25"


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A database and how to connect to it.

    Attributes:
        arguments: what `asyncpg.connect` and `asyncpg.create_pool` are called with.
        pooled: True if the URL says that a pooler stands before the server; None if it does not say.
        timeout_s: how long connecting may take.
    """

    arguments: Mapping[str, Any] = field(repr=False)
    pooled: bool | None
    timeout_s: float


@lru_cache(maxsize=8)
def read_database_url(url: str) -> DatabaseAddress:
    """Return the address that a URL names; warn once of parameters that are ignored. Asks no server.

    Raises:
        InvalidSetting: the URL cannot be used. The message names the part and the fix, and repeats no secret.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise _wrong(_instead_of_a_url(url))
    if _PLACEHOLDER.search(url):
        raise _wrong("holds a placeholder that was not filled in, such as ${HOST}; write what it stands for")
    before, _, query = url[scheme.end() :].partition("?")
    if "://" in before:
        raise _wrong("has :// twice; keep one of the two, and write %3A%2F%2F within a password")
    authority, _, path = before.partition("/")
    if "@" in path and "@" not in authority:
        raise _wrong(f"has an @ behind its first /: {_ENCODE}")
    if re.search(r";\s*\w+=", path):
        raise _wrong("has a ; behind the database's name; write ? before the first parameter, and & before each other")
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    given = _parameters(query)
    _refuse_misspelt(given)
    _refuse_what_cannot_be_followed(given)
    tls = _tls(given)
    arguments: dict[str, Any] = {
        **_hosts(hosts or given.get("host", ""), given.get("port", "")),
        **tls,
        "user": _decoded(user, "the user's name") or given.get("user") or _own_name(),
        "password": _decoded(password, "the password") or given.get("password") or None,
        "database": _bare(_decoded(path.strip("/"), "the database's name"), "the database's name")
        or given.get("dbname")
        or given.get("database")
        or None,
        "target_session_attrs": _one_of(given, "target_session_attrs", _SESSIONS),
        "server_settings": {name: given[name] for name in _SERVER_SETTINGS if name in given},
        "timeout": (timeout_s := _timeout(given)),
    }
    return DatabaseAddress(
        {name: value for name, value in arguments.items() if value is not None}, _pooled(given), timeout_s
    )


def _wrong(what: str) -> InvalidSetting:
    return InvalidSetting(VARIABLE, what)


def _instead_of_a_url(text: str) -> str:
    """Say what a value is that is no URL, as people paste them. It may hold a password, so none of it is repeated."""
    fix = "write postgresql://USER:PASSWORD@HOST/NAME"
    if text[:1] in _QUOTES:
        return f"begins with a quotation mark; leave the quotation marks out, {fix}"
    for pasted, what in _PASTED.items():
        if re.match(pasted, text, re.IGNORECASE):
            return f"{what}; {fix}"
    return f"does not begin with postgresql:// (or postgres://); {fix}"


def _bare(text: str, what: str) -> str:
    if text[:1] in _QUOTES and len(text) > 1:
        raise _wrong(f"has {what} in quotation marks; leave them out")
    return text


def _refuse_what_cannot_be_followed(given: Mapping[str, str]) -> None:
    """Refuse parameters that the server or a file would be asked about later, in words that name no parameter."""
    for name, value in given.items():
        if name != "password":
            _bare(value, f"the value of {name}")
    if "service" in given:
        raise _wrong(
            "has service=…, which names a section of a file that other machines lack; write that section's host, port, "
            "user, password and dbname into the URL"
        )
    if "options" in given and not _OPTIONS.fullmatch(given["options"]):
        raise _wrong(
            "has options=… that the server cannot read; write options=-c%20NAME%3DVALUE, with %20 for each space "
            "(a + stays a +)"
        )


def _decoded(text: str, what: str) -> str:
    """Return percent-encoded text as it is meant. A `+` stays one, as in libpq."""
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise _wrong(f"has {what} percent-encoded in something other than UTF-8; {_ENCODE}") from error
    if "\0" in decoded:
        raise _wrong(f"has %00 in {what}, which Postgres cannot take; remove it")
    return decoded


def _parameters(query: str) -> dict[str, str]:
    """Return the query's parameters that have a value; of one given twice, the last."""
    pairs = (part.partition("=") for part in query.split("&"))
    decoded = {
        _decoded(name, "a parameter").strip().lower(): _decoded(value, "a parameter").strip()
        for name, _, value in pairs
    }
    return {_OF_JAVA.get(name, name): value for name, value in decoded.items() if name and value}


def _refuse_misspelt(given: Mapping[str, str]) -> None:
    for name in given:
        if name in _WITHOUT_EFFECT:
            more = "; sslmode=verify-full protects from a false server" if name == "channel_binding" else ""
            log.warning("database_url.parameter_ignored", parameter=name, why=f"the driver does not know it{more}")
        elif name not in _KNOWN:
            meant = [] if name in _OF_PGX else difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.85)
            if meant or name.startswith(("ssl", "tls")):
                hint = f"write {meant[0]}" if meant else "use sslmode and sslrootcert, or remove it"
                raise _wrong(f"has the unknown parameter {name!r:.60}: {hint}")
            log.warning(
                "database_url.parameter_ignored",
                parameter=name[:60],
                why="another driver's; a setting of the server is written as options=-c%20NAME%3DVALUE",
            )


def _one_of(given: Mapping[str, str], name: str, values: Sequence[str]) -> str | None:
    written = given.get(name, "").lower().replace("_", "-")
    value = _OF_JAVA.get(written, written)
    if not value or value in values:
        return value or None
    raise _wrong(f"has {name}={given[name]!r:.60}; it must be one of {', '.join(values)}")


def _tls(given: dict[str, str]) -> dict[str, Any]:
    """Return how asyncpg is to use TLS; normalizes `sslmode` and its older spellings."""
    older = given.get("ssl", "").lower()
    if older and "sslmode" not in given:
        given["sslmode"] = "require" if older in _YES else "disable" if older in _NO else older
    if given.get("requiressl", "") in _YES and "sslmode" not in given:
        given["sslmode"] = "require"
    if given.get("sslmode", "").lower() == "no-verify":
        given["sslmode"] = "require"
    mode = _one_of(given, "sslmode", _MODES)
    if mode is not None:
        given["sslmode"] = mode
    system = given.get("sslrootcert") == "system"
    if system and mode not in {None, "verify-full"}:
        raise _wrong("has sslrootcert=system, which needs sslmode=verify-full, since any site has such a certificate")
    _require_readable(given, system=system)
    for name, values in (("sslnegotiation", ("postgres", "direct")), ("gsslib", ("gssapi", "sspi"))):
        _one_of(given, name, values)
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        if given.get(name, "TLSv1.2") not in {"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}:
            raise _wrong(f"has {name}={given[name]!r:.60}; it must be one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3")
    if given.get("sslnegotiation") == "direct" and mode not in {"require", "verify-ca", "verify-full"}:
        raise _wrong("has sslnegotiation=direct, which needs sslmode=require, verify-ca or verify-full")
    if system or (mode == "verify-full" and not _has_root_file(given)):
        return {"ssl": _by_the_systems_certificates(given), "direct_tls": given.get("sslnegotiation") == "direct"}
    if mode == "verify-ca" and not _has_root_file(given):
        raise _wrong("has sslmode=verify-ca without sslrootcert; name the file of the authority's certificate")
    query = urlencode({name: given[name] for name in _FOR_ASYNCPG if name in given})
    return {"dsn": f"postgresql:///?{query}"} if query else {}


def _has_root_file(given: Mapping[str, str]) -> bool:
    if given.get("sslrootcert") or os.environ.get("PGSSLROOTCERT"):
        return True
    try:
        return (Path.home() / ".postgresql" / "root.crt").exists()
    except (RuntimeError, OSError):  # no home, or one that is closed
        return False


def _by_the_systems_certificates(given: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    if "sslcert" in given:
        context.load_cert_chain(given["sslcert"], given.get("sslkey"), lambda: given.get("sslpassword", ""))
    return context


def _require_readable(given: Mapping[str, str], *, system: bool) -> None:
    """Read every file of TLS now: asyncpg does at each connection, and its errors name no file."""
    for name in _FILES:
        if name not in given or (name == "sslrootcert" and system):
            continue
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if name == "sslcert":
                context.load_cert_chain(given[name], given.get("sslkey"), lambda: given.get("sslpassword", ""))
            elif name == "sslkey":
                Path(given[name]).read_bytes()
            else:
                context.load_verify_locations(cafile=given[name])
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
            raise _wrong(
                f"has {name}={given[name]!r:.200}, which cannot be used: {why or 'no valid PEM file'}; mend the path"
            ) from error


def _hosts(hosts: str, ports: str) -> dict[str, Any]:
    """Return the hosts and the port of each. None: asyncpg's defaults, `PGHOST` or a local socket."""
    common = [_port(port) for port in ports.split(",")] if ports else []
    if not hosts:
        return {"port": common[0]} if common else {}
    found = [_host(one) for one in hosts.split(",")]
    if len(common) not in {0, 1, len(found)}:
        raise _wrong(f"has {len(common)} ports for {len(found)} hosts; give one for all, or one each")
    common = common * len(found) if len(common) == 1 else common or [_DEFAULT_PORT] * len(found)
    return {
        "host": [host for host, _ in found],
        "port": [own or shared for (_, own), shared in zip(found, common, strict=True)],
    }


def _host(text: str) -> tuple[str, int | None]:
    if text.startswith("/"):  # a socket's folder, given as a parameter; it may hold colons
        return text, None
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(.*))?", text)
    name, port = bracketed.groups() if bracketed else (text.partition(":")[0], text.partition(":")[2])
    host = _decoded(name, "a host")
    if not host or re.search(r"[\s;\\]", host) or (not bracketed and ":" in (port or "")):
        raise _wrong(f"has an empty or malformed host: write HOST:PORT, [IPV6]:PORT or %2Fsocket%2Ffolder; {_ENCODE}")
    return host, _port(port) if port else None


def _port(text: str) -> int:
    decoded = _decoded(text, "a port").strip()
    # Not repeated: an unencoded password may have been taken for a port.
    if not (decoded.isascii() and decoded.isdecimal() and 1 <= int(decoded[:6]) <= _LAST_PORT):
        raise _wrong(f"has a port that is no number from 1 to {_LAST_PORT}; {_ENCODE}")
    return int(decoded)


def _own_name() -> str | None:
    """Refuse a URL without a user where the process's account has no name either, as in many containers."""
    if os.environ.get("PGUSER"):
        return None
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        raise _wrong("names no user; write postgresql://USER:PASSWORD@HOST/NAME") from error


def _timeout(given: Mapping[str, str]) -> float:
    text = given.get("connect_timeout", "0")
    if not re.fullmatch(r"-?\d{1,6}(\.\d+)?", text):
        raise _wrong(f"has connect_timeout={text!r:.60}; it must be a number of seconds")
    return float(text) if float(text) > 0 else CONNECT_S


def _pooled(given: Mapping[str, str]) -> bool | None:
    said = given.get("pgbouncer", "").lower()
    if said not in {*_YES, *_NO}:
        raise _wrong(f"has pgbouncer={said!r:.60}; it must be true or false")
    sizes = [given[name] for name in _STATEMENT_CACHES if name in given]
    for size in sizes:
        if not re.fullmatch(r"\d{1,9}", size):
            raise _wrong(f"has a size of the statement cache of {size!r:.60}; it must be a number, 0 behind a pooler")
    return True if said in _YES or any(int(size) == 0 for size in sizes) else None
