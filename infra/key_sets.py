"""An identity provider publishes a set of keys (JWKS), which is fetched at need.

A set is good for an hour, then it is fetched behind the requests' back. A token of a key that is not in it has it
fetched at once, because the provider may have changed keys; one fetch begins in 30 seconds, whatever comes in, and all
who need it wait for the same one. When a fetch fails, the last good set stays. Only keys that could have signed such a
token are kept, and only so many; redirects are not followed, and no answer is read beyond 256 KiB.
"""

import asyncio
import time
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import aiohttp
import jwt
import orjson
import structlog

log = structlog.get_logger(__name__)

ALGORITHMS: Final = ("RS256", "ES256")
_FRESH_S: Final = 3_600.0
_BETWEEN_FETCHES_S: Final = 30.0
_PATIENCE_S: Final = 5.0
_LONGEST_ANSWER: Final = 256 * 1024
_MOST_KEYS: Final = 100
_TO_SIGN: Final = (None, "sig")  # what a key says that it is for

_Name: TypeAlias = tuple[str | None, str]
Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]


class NoKeySet(Exception):
    """No set has been fetched yet, so a token can be neither accepted nor refused."""


async def fetch(url: str) -> bytes:
    """Return what is at the address.

    Raises:
        OSError: nothing came in five seconds, or not what was asked for.
        aiohttp.ClientError: the same.
    """
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as answer:
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise OSError(f"the answer has the status {answer.status}")
        content = bytearray()
        async for part in answer.content.iter_any():
            content += part
            if len(content) > _LONGEST_ANSWER:
                raise OSError(f"the answer is longer than {_LONGEST_ANSWER} bytes")
        return bytes(content)


class KeySet:
    """The keys of one provider."""

    def __init__(self, url: str, *, fetch: Fetch = fetch, seconds: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._fetch = fetch
        self._seconds = seconds
        self._keys: Mapping[_Name, Sequence[jwt.PyJWK]] | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """Return the keys of this ID and algorithm. There are several if the provider gave them one ID.

        A token without an ID means the only key. Keys of two kinds may share an ID (RFC 7517, section 4.5).

        Raises:
            NoKeySet: the provider has not answered yet.
        """
        if self._keys is None or not (found := self._find(key_id, algorithm)):
            if (fetching := self._begin()) is not None:
                # Others wait for the same fetch: one that goes away does not end it.
                await asyncio.shield(fetching)
            if self._keys is None:
                raise NoKeySet
            return self._find(key_id, algorithm)
        if self._seconds() - self._fetched_at >= _FRESH_S:
            self._begin()
        return found

    def _find(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        keys = self._keys or {}
        if key_id is None and len(keys) != 1:
            return ()
        only = next(iter(keys)) if key_id is None else (key_id, algorithm)
        return keys.get(only, ()) if only[1] == algorithm else ()

    def _begin(self) -> asyncio.Task[None] | None:
        """Return the fetch that runs, or one that begins; None if it is too early for another."""
        if self._fetching is None and self._seconds() - self._tried_at >= _BETWEEN_FETCHES_S:
            self._tried_at = self._seconds()
            self._fetching = asyncio.create_task(self._refresh(), name="key set")
        return self._fetching

    async def _refresh(self) -> None:
        try:
            self._keys = _usable(await self._fetch(self._url))
            self._fetched_at = self._seconds()
        except (OSError, ValueError, aiohttp.ClientError) as error:
            log.warning("key_set.not_fetched", url=self._url, why=f"{type(error).__name__}: {error}")
        finally:
            self._fetching = None


def _usable(content: bytes) -> dict[_Name, Sequence[jwt.PyJWK]]:
    """Return the keys that may sign tokens, by their IDs and algorithms.

    Raises:
        ValueError: it is no set of keys, or none of them can be used.
    """
    document = orjson.loads(content.removeprefix(BOM_UTF8))
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        described = isinstance(document, dict) and document.get("jwks_uri")
        fix = "; set the address to its `jwks_uri`" if described else ""
        raise ValueError(f"the answer is no JWKS: it lacks the list `keys`{fix}")  # noqa: TRY004 - it is about a text
    keys: dict[_Name, Sequence[jwt.PyJWK]] = {}
    for one in listed[:_MOST_KEYS]:
        if (key := _signing(one)) is not None:
            name = one.get("kid"), str(key.algorithm_name)
            keys[name] = (*keys.get(name, ()), key)
    if not keys:
        raise ValueError(f"the set holds no key for {' or '.join(ALGORITHMS)}")
    return keys


def _signing(one: object) -> jwt.PyJWK | None:
    """Return a key if tokens may be signed with it. Others stand in such sets too, for other uses."""
    if not isinstance(one, dict) or one.get("use") not in _TO_SIGN or not isinstance(one.get("kid"), str | None):
        return None
    if (uses := one.get("key_ops")) is not None and not (isinstance(uses, list) and "verify" in uses):
        return None
    try:
        key = jwt.PyJWK(one)
        if key.algorithm_name not in ALGORITHMS or key.Algorithm.check_key_length(key.key):
            return None
    except Exception:  # noqa: BLE001 - PyJWT lets out whatever an odd key leads to; the keys beside it go on
        return None
    return key
