"""The answer to a wrong broker URL says which part of it to mend.

A wrong URL often reaches something: a port that speaks TLS, or does not; a server without that database or password;
no Sentinel; no Redis at all. Its answer alone says little to who wrote the URL.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

__all__ = ["advice_on", "tls_advice"]

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
