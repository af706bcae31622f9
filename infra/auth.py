"""Bearer tokens: who calls, for which organization, with which scopes. Signed with HS256: one key makes and checks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeGuard

import jwt

from infra.errors import TeamfitError
from infra.settings import Settings

JOBS: Final = "jobs"
"""The scope that lets an organization request its jobs and read them."""
OPERATOR: Final = "operator"
"""The scope of those who run the pipeline."""
VIEWER: Final = "viewer"
"""The scope of those who may look at the console, and change nothing."""

SHORTEST_KEY = 32  # bytes; RFC 7518 section 3.2 asks HS256 for a key no shorter than its hash
_ALGORITHM = "HS256"
_LATEST: Final = 7_258_118_400  # the year 2200; beyond it a time might leave the calendar
_CLOCK_SKEW = timedelta(seconds=30)
_REQUIRED = ["sub", "org", "scope", "exp", "iat"]


class NoSigningKey(TeamfitError):
    """Tokens can be neither made nor checked. The message says how to make a key."""


class InvalidToken(TeamfitError):
    """The token is not one of ours, or no longer.

    Attributes:
        code: ``token_expired`` or ``token_invalid``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as the token says it."""

    subject: str
    organization_id: str
    scopes: frozenset[str]
    expires_at: datetime | None = field(default=None, compare=False)


def signing_key(settings: Settings) -> str:
    """Return the key that signs tokens.

    Raises:
        NoSigningKey: it is missing or too short to be safe.
    """
    key = settings.signing_key.get_secret_value() if settings.signing_key else ""
    if len(key.encode()) < SHORTEST_KEY:
        what = f"has {len(key.encode())} bytes" if key else "is not set"
        raise NoSigningKey(
            f"TEAMFIT_SIGNING_KEY {what}; at least {SHORTEST_KEY} bytes are needed to sign bearer tokens. "
            "Make one with `openssl rand -hex 32` and give the same one to every API process."
        )
    return key


def issue_token(
    key: str,
    *,
    organization_id: str,
    subject: str = "cli",
    scopes: Iterable[str] = (JOBS,),
    lifetime: timedelta = timedelta(days=30),
) -> str:
    """Make a token for an organization. It cannot be taken back before it expires, so keep lifetimes short."""
    now = datetime.now(UTC)
    claims = {
        "sub": subject,
        "org": organization_id,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + lifetime,
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def read_token(key: str, token: str) -> Caller:
    """Check a token and return who it speaks for.

    Raises:
        InvalidToken: it has expired, or its signature or its claims are wrong. The message does not repeat the token.
    """
    try:
        claims = jwt.decode(token, key, algorithms=[_ALGORITHM], leeway=_CLOCK_SKEW, options={"require": _REQUIRED})
    except jwt.ExpiredSignatureError as error:
        raise InvalidToken("token_expired", "the bearer token has expired; ask for a new one") from error
    except jwt.MissingRequiredClaimError as error:
        raise InvalidToken("token_invalid", f"the bearer token lacks the claim `{error.claim}`") from error
    except (jwt.InvalidTokenError, RecursionError, OverflowError, ValueError) as error:
        # PyJWT lets out what reading the JSON and the times in it raises: all before, or in spite of, a good signature.
        raise InvalidToken("token_invalid", "the bearer token is not one that this API signed") from error
    subject, organization_id, scope = claims["sub"], claims["org"], claims["scope"]
    if not (_is_name(subject) and _is_name(organization_id) and isinstance(scope, str)):
        raise InvalidToken("token_invalid", "the bearer token's claims `sub`, `org` and `scope` must be printable text")
    expires_at = datetime.fromtimestamp(min(int(claims["exp"]), _LATEST), UTC)
    return Caller(subject, organization_id, frozenset(scope.split()), expires_at)


def _is_name(claim: object) -> TypeGuard[str]:
    """Whether a claim is text that can be kept and shown: not empty, no NUL, no half a character."""
    return isinstance(claim, str) and bool(claim) and claim.isprintable()
