"""Tokens that were just checked are not checked again.

A signature costs more than all else that a cheap read does.
Only hashes of tokens are kept, of those that were accepted, for a minute and no longer than they live. So a key that a
provider withdraws is good for a minute more. Whether a token is revoked is asked each time, not here.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

_KEPT_S: Final = 60.0
_MOST: Final = 10_000


class CheckedTokens:
    """The claims of tokens that were checked a moment ago.

    Args:
        now: seconds since 1970, as claims have them.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._claims: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()

    def claims_of(self, token: str) -> Mapping[str, Any] | None:
        """Return the claims, or None: the token has to be checked."""
        found = self._claims.get(_digest(token))
        if found is None:
            return None
        until, claims = found
        # A clock that was set back would keep a token for longer: then it is checked again.
        return claims if until - _KEPT_S <= self._now() < until else None

    def keep(self, token: str, claims: Mapping[str, Any]) -> None:
        """Remember a token that was accepted. The oldest of too many is forgotten."""
        digest = _digest(token)
        # As an integer, which may have more digits than a float has room for.
        self._claims[digest] = (min(self._now() + _KEPT_S, int(claims["exp"])), claims)
        self._claims.move_to_end(digest)
        if len(self._claims) > _MOST:
            self._claims.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
