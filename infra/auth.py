"""Bearer tokens: who calls, for which organization, with which scopes. Signed with HS256: one key makes and checks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import jwt
from jwt.exceptions import InvalidJTIError, InvalidSubjectError
from pydantic import SecretStr

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
_CLOCK_SKEW: Final = timedelta(seconds=30)
_REQUIRED = ["sub", "org", "scope", "exp", "iat"]


class NoSigningKey(TeamfitError):
    """Tokens can be neither made nor checked. The message says how to make a key."""


class InvalidToken(TeamfitError):
    """The token is not one of ours, or no longer.

    Attributes:
        code: ``token_expired``, ``token_invalid``, or ``identity_unavailable`` of one that cannot be judged now.
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
    return _long_enough(settings.signing_key, "TEAMFIT_SIGNING_KEY")


def signing_keys(settings: Settings) -> tuple[str, ...]:
    """Return the keys whose tokens are accepted: the present one and the one before.

    Raises:
        NoSigningKey: one that is set is too short to be safe.
    """
    keys = {"TEAMFIT_SIGNING_KEY": settings.signing_key, "TEAMFIT_SIGNING_KEY_BEFORE": settings.signing_key_before}
    return tuple(_long_enough(key, name) for name, key in keys.items() if key is not None)


def _long_enough(secret: SecretStr | None, variable: str) -> str:
    key = secret.get_secret_value() if secret else ""
    if len(key.encode()) < SHORTEST_KEY:
        what = f"has {len(key.encode())} bytes" if key else "is not set"
        raise NoSigningKey(
            f"{variable} {what}; at least {SHORTEST_KEY} bytes are needed to sign bearer tokens. "
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
    """Make a token for an organization. It lives until it expires or its `jti` is on the list of revoked ones."""
    now = datetime.now(UTC)
    claims = {
        "sub": subject,
        "org": organization_id,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + lifetime,
        "jti": str(uuid4()),
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def read_token(key: str, token: str) -> Mapping[str, Any]:
    """Check a token that one of our own keys has signed, and return its claims.

    Raises:
        InvalidToken: it has expired, or its signature or its claims are wrong. The message does not repeat the token.
    """
    return decoded(token, key, algorithms=[_ALGORITHM], required=_REQUIRED)


def decoded(
    token: str,
    key: str | jwt.PyJWK,
    *,
    algorithms: Sequence[str],
    required: Sequence[str],
    audience: str | None = None,
    issuer: str | None = None,
) -> Mapping[str, Any]:
    """Check a token's signature, times, audience and issuer, and return its claims.

    Raises:
        InvalidToken: it has expired, or something about it is wrong. The message does not repeat the token.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            options={"require": list(required)},
            leeway=_CLOCK_SKEW,
            audience=audience,
            issuer=issuer,
        )
    except jwt.ExpiredSignatureError as error:
        raise InvalidToken("token_expired", "the bearer token has expired; ask for a new one") from error
    except jwt.MissingRequiredClaimError as error:
        raise InvalidToken("token_invalid", f"the bearer token lacks the claim `{error.claim}`") from error
    except (jwt.InvalidTokenError, RecursionError, OverflowError, ValueError) as error:
        # PyJWT lets out what reading the JSON and the times in it raises: all before, or in spite of, a good signature.
        raise InvalidToken("token_invalid", objection(error)) from error
    return claims


def objection(error: Exception) -> str:
    """Return what is wrong with a token by PyJWT's error, and the fix."""
    match error:
        case jwt.InvalidIssuerError():
            return "the bearer token is of another issuer; its `iss` must be the one set here, last slash and all"
        case jwt.InvalidAudienceError():
            return "the bearer token is for another audience; ask for one whose `aud` names this API"
        case jwt.ImmatureSignatureError():
            return "the bearer token is not one that is valid yet; its `iat` and `nbf` lie ahead, so compare the clocks"
        case jwt.InvalidAlgorithmError():
            return "the bearer token's `alg` is not taken; it must be HS256, or RS256 or ES256 of the identity provider"
        case InvalidSubjectError() | InvalidJTIError():
            return "the bearer token's claims `sub` and `jti` must be text"
        case jwt.InvalidSignatureError():
            return "the bearer token is not one that this API signed"
        case _:
            return "the bearer token cannot be read; it must be a JWT without `crit`, with times in numbers"


def caller_of(claims: Mapping[str, Any]) -> Caller:
    """Return who a checked token speaks for.

    Raises:
        InvalidToken: its claims are not of the form that they must have.
    """
    subject, organization_id = text_of("sub", claims["sub"]), text_of("org", claims["org"])
    scope = text_of("scope", claims["scope"], scopes=True)
    expires_at = datetime.fromtimestamp(min(int(claims["exp"]), _LATEST), UTC)
    return Caller(subject, organization_id, frozenset(scope.split()), expires_at)


def text_of(name: str, claim: object, *, scopes: bool = False) -> str:
    """Return a claim that is text which can be kept and shown.

    It is not empty, and holds no NUL and no half a character.

    Args:
        name: what the token calls the claim.
        claim: what it holds.
        scopes: whether it is a list of scopes, which may be empty.

    Raises:
        InvalidToken: it is no such text.
    """
    if isinstance(claim, str) and (scopes or (claim and claim.isprintable())):
        return claim
    lacks = "is missing; it " if claim is None else ""
    raise InvalidToken("token_invalid", f"the bearer token's claim `{name}` {lacks}must be printable text")
