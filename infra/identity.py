"""Tokens of our own keys and of an identity provider (OIDC) are read here.

Our own are HS256. Two keys are accepted while keys are changed: the one that signs, and the one before it. The
provider's are RS256 or ES256, for its issuer and our audience alone; which claims hold the organization and the scopes
is a setting. A token whose ID (`jti`) is on the list of revoked ones is refused, whoever signed it.

Tokens that were just checked are not checked again: a signature costs more than all else that a cheap read does.
Only hashes of tokens are kept, of those that were accepted, for a minute and no longer than they live. So a key that a
provider withdraws is good for a minute more. Whether a token is revoked is asked each time.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import structlog
from yarl import URL

from infra.auth import (
    Caller,
    InvalidToken,
    NoSigningKey,
    caller_of,
    decoded,
    objection,
    read_token,
    signing_keys,
    text_of,
)
from infra.errors import InvalidSetting
from infra.key_sets import ALGORITHMS, KeySet, NoKeySet
from infra.settings import Settings

log = structlog.get_logger(__name__)

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


_LOOK_AGAIN_S: Final = 5.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Revoked:
    """A file lists the IDs of tokens that are revoked, one on each line. It is read again when it changes."""

    def __init__(self, path: Path, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._seconds = seconds
        self._looked_at = seconds()
        self._seen: object = None
        self._ids: frozenset[str] = frozenset()
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise InvalidSetting(
                Settings.variable("revoked_tokens"), f"names a file that cannot be read ({error}); make it, empty"
            ) from error

    def __contains__(self, token_id: str) -> bool:
        """Return whether the token is revoked. While the file cannot be read, what it said last holds."""
        if self._seconds() - self._looked_at >= _LOOK_AGAIN_S:
            self._looked_at = self._seconds()
            try:
                self._read()
            except (OSError, ValueError) as error:
                log.warning("revoked_tokens.not_read", path=str(self._path), why=f"{type(error).__name__}: {error}")
        return token_id in self._ids

    def _read(self) -> None:
        state = self._path.stat()
        seen = (state.st_ino, state.st_size, state.st_mtime_ns)
        if seen != self._seen:
            text = self._path.read_text(encoding="utf-8-sig")  # whatever the locale, and what an editor puts first
            self._ids = frozenset(filter(None, map(str.strip, text.splitlines())))
            self._seen = seen


@dataclass(frozen=True, slots=True)
class Provider:
    """An OIDC provider, and how its claims are read."""

    issuer: str
    audience: str
    keys: KeySet
    organization_claim: str
    scope_claim: str

    async def read(self, token: str, header: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the token's claims under our own names.

        Raises:
            InvalidToken: it is not one of this provider's for us, or no longer; or its keys are not there yet.
        """
        key_id = header.get("kid")
        try:
            keys = await self.keys.find(key_id if isinstance(key_id, str) else None, header["alg"])
        except NoKeySet as error:
            message = "the identity provider's keys cannot be fetched at present; send the request again later"
            raise InvalidToken("identity_unavailable", message) from error
        if not keys:
            lacks = "has several keys, and the bearer token lacks `kid`"
            why = "has no key of the bearer token's `kid` for its `alg`" if key_id else lacks
            raise InvalidToken("token_invalid", f"the identity provider {why}")
        return self._named(_first_good([partial(self._checked, token, key) for key in keys]))

    def _checked(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        return decoded(
            token,
            key,
            algorithms=ALGORITHMS,
            required=("iss", "aud", "sub", "exp", "iat"),
            audience=self.audience,
            issuer=self.issuer,
        )

    def _named(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return claims with the organization and the scopes under our own names. Raises InvalidToken by theirs."""
        scope = _at(claims, self.scope_claim)
        if isinstance(scope, list) and all(isinstance(one, str) for one in scope):
            scope = " ".join(scope)
        scopes = text_of(self.scope_claim, scope, scopes=True).split()
        return {
            **claims,
            "org": text_of(self.organization_claim, _at(claims, self.organization_claim)),
            # Cognito and others write the resource before each of its scopes.
            "scope": " ".join(one.removeprefix(f"{self.audience}/") for one in scopes),
        }


@dataclass(frozen=True, slots=True)
class Tokens:
    """Reads bearer tokens."""

    keys: tuple[str, ...]
    provider: Provider | None = None
    revoked: Revoked | None = None
    checked: CheckedTokens = field(default_factory=CheckedTokens)

    @classmethod
    def of(cls, settings: Settings) -> "Tokens":
        """Return the reader that the settings describe. Nothing is fetched before the first token comes.

        Raises:
            NoSigningKey: a key is too short to be safe.
            InvalidSetting: the provider is described in part, or the list of revoked tokens cannot be read.
        """
        revoked = None if settings.revoked_tokens is None else Revoked(Path(settings.revoked_tokens))
        return cls(signing_keys(settings), _provider(settings), revoked)

    async def read(self, token: str) -> Caller:
        """Check a token and return who it speaks for.

        Raises:
            InvalidToken: it cannot be accepted. The message does not repeat the token.
            NoSigningKey: it is of our own kind, and there is no key.
        """
        claims = self.checked.claims_of(token) or await self._check(token)
        token_id = claims.get("jti")
        if self.revoked is not None and isinstance(token_id, str) and token_id in self.revoked:
            raise InvalidToken("token_invalid", "the bearer token has been revoked; ask for a new one")
        return caller_of(claims)

    async def _check(self, token: str) -> Mapping[str, Any]:
        header = _header(token)
        if self.provider is not None and header.get("alg") in ALGORITHMS:
            claims = await self.provider.read(token, header)
        else:
            claims = self._own(token)
        self.checked.keep(token, claims)
        return claims

    def _own(self, token: str) -> Mapping[str, Any]:
        if not self.keys:
            raise NoSigningKey("TEAMFIT_SIGNING_KEY is not set, so no token can be checked; links of `teamfit` go on")
        return _first_good([partial(read_token, key, token) for key in self.keys])


def _first_good(reads: Sequence[Callable[[], Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Return the claims of a token by the key that has signed it. Raises InvalidToken."""
    *earlier, last = reads
    for read in earlier:
        try:
            return read()
        except InvalidToken as error:
            if not isinstance(error.__cause__, jwt.InvalidSignatureError):
                raise  # this key has signed it, or no key has
    return last()


def _header(token: str) -> Mapping[str, Any]:
    try:
        return jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, RecursionError, ValueError) as error:
        raise InvalidToken("token_invalid", objection(error)) from error


def _at(claims: object, path: str) -> object:
    """Return a claim, or what is inside of one: `resource.org`. Of names with dots in them the longest goes first."""
    if not isinstance(claims, dict):
        return None
    if path in claims:
        return claims[path]
    dots = [place for place, character in enumerate(path) if character == "."]
    inside = (_at(claims.get(path[:dot]), path[dot + 1 :]) for dot in reversed(dots))
    return next((found for found in inside if found is not None), None)


def _provider(settings: Settings) -> Provider | None:
    parts = {
        "oidc_issuer": settings.oidc_issuer,
        "oidc_audience": settings.oidc_audience,
        "oidc_jwks_url": settings.oidc_jwks_url,
    }
    if not any(parts.values()):
        return None
    issuer, audience, keys_url = (_given(name, value) for name, value in parts.items())
    _check_keys_url(keys_url)
    return Provider(
        issuer=issuer,
        audience=audience,
        keys=KeySet(keys_url),
        organization_claim=settings.oidc_organization_claim,
        scope_claim=settings.oidc_scope_claim,
    )


def _check_keys_url(text: str) -> None:
    """Pass if keys can be fetched there. Raises InvalidSetting."""
    variable = Settings.variable("oidc_jwks_url")
    try:
        url, host = URL(text), urlsplit(text).hostname
    except ValueError as error:
        raise InvalidSetting(variable, f"cannot be read: {error}") from error
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
        # A stranger who can change what comes over plain HTTP makes tokens for everybody.
        raise InvalidSetting(variable, "must begin with https://")
    if not host or url.port == 0 or not text.isprintable() or " " in text:
        raise InvalidSetting(variable, "has no host, or a blank; write https://id.example.com/keys")


def _given(name: str, value: str | None) -> str:
    if not value:
        raise InvalidSetting(Settings.variable(name), "is not set; an identity provider needs all three of them")
    return value
