"""A session has a cookie stand for a person until the server ends it.

Postgres keeps hashes of secrets. Sessions are looked up at most once in five seconds by each process, all of those that
look in one statement, however many there are and however many pages they have open; so a session's end is noticed
everywhere within that time, and at once where it was ended.
"""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TypeAlias

import aiosql

from infra.auth import OPERATOR, VIEWER, Caller
from infra.errors import Refused, TeamfitError
from infra.postgres import Connection, Database

_queries = aiosql.from_path(Path(__file__).with_name("sessions.sql"), "asyncpg")

Role: TypeAlias = Literal["operator", "viewer"]

LIFETIME: Final = timedelta(hours=8)
"""A working day: longer leaves forgotten browsers signed in, shorter asks for a token in the middle of an incident."""
LINK_LIFETIME: Final = timedelta(minutes=30)
_LOOKED_UP_EVERY_S: Final = 5.0
_IN_USE_FOR_S: Final = 30.0  # a live page asks every ten seconds at least
_MOST_REMEMBERED: Final = 1_000


class LinkUsed(TeamfitError):
    """A link is not valid any more."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who signed in.

    Attributes:
        secret: the cookie's value.
        subject: who.
    """

    secret: str
    subject: str
    role: Role
    expires_at: datetime

    @property
    def form_token(self) -> str:
        """The token that each of its forms carries. It does not tell the secret."""
        return form_token(self.secret)


def form_token(secret: str) -> str:
    """Return the token of the forms that a cookie's owner is shown."""
    return hmac.new(secret.encode(), b"teamfit console form", hashlib.sha256).hexdigest()


def role_of(caller: Caller) -> Role:
    """Return the role that a token gives. Raises Refused when it gives none."""
    if OPERATOR in caller.scopes:
        return "operator"
    if VIEWER in caller.scopes:
        return "viewer"
    raise Refused("insufficient_scope", "this token is a customer's: the console asks for the scope operator or viewer")


@dataclass(slots=True)
class _Known:
    """A session as it was looked up, or None for a secret that has none; and when somebody last asked for it."""

    session: Session | None
    looked_up_at: float
    asked_at: float

    def is_old(self) -> bool:
        return self.looked_up_at < monotonic() - _LOOKED_UP_EVERY_S

    def is_in_use(self) -> bool:
        return self.session is not None and self.asked_at > monotonic() - _IN_USE_FOR_S


class Sessions:
    """The sessions in Postgres. Each method that asks it raises DependencyDown when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, _Known] = {}
        self._turn = asyncio.Lock()

    async def begin(self, subject: str, role: Role, *, until: datetime | None = None) -> Session:
        """Begin a session. It ends after a working day, or with its bearer token."""
        now = self._database.clock.now()
        expires_at = min(now + LIFETIME, until or now + LIFETIME)
        session = Session(secrets.token_urlsafe(32), subject, role, expires_at)
        async with self._database.transaction() as connection:
            await _begin(connection, session, now)
        return session

    async def begin_by_link(self, link_secret: str) -> Session:
        """Use a link up and begin its operator's session; both happen, or neither.

        Raises:
            LinkUsed: the link was used, or is too old.
        """
        now = self._database.clock.now()
        async with self._database.transaction() as connection:
            row = await _queries.use_link(connection, secret_hash=_hash(link_secret), now=now)
            if row is None:
                raise LinkUsed("this link was used before, or is older than half an hour; ask for a new one")
            session = Session(secrets.token_urlsafe(32), row["subject"], "operator", now + LIFETIME)
            await _begin(connection, session, now)
        return session

    async def find(self, secret: str) -> Session | None:
        """Return the session of a cookie, if it is one that has not ended."""
        known = self._known.get(secret)
        if known is None or known.is_old():
            async with self._turn:
                known = self._known.get(secret)
                if known is None or known.is_old():
                    known = await self._look_up(secret)
        known.asked_at = monotonic()
        session = known.session
        return session if session is not None and session.expires_at > self._database.clock.now() else None

    async def _look_up(self, secret: str) -> "_Known":
        """Look a session up, and with it all others that somebody has lately asked for."""
        self._known = {one: known for one, known in self._known.items() if known.is_in_use()}
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        hashes = {_hash(one): one for one in (secret, *self._known)}
        now = monotonic()
        async with self._database.transaction() as connection:
            rows = _queries.find(connection, secret_hashes=[*hashes])
            found = {row["secret_hash"]: row async for row in rows}
        for digest, one in hashes.items():
            row = found.get(digest)
            session = row and Session(one, row["subject"], row["role"], row["expires_at"])
            asked_at = self._known[one].asked_at if one in self._known else now
            self._known[one] = _Known(session, now, asked_at)
        return self._known[secret]

    async def end(self, session: Session) -> None:
        """End a session. A repeat changes nothing."""
        async with self._database.transaction() as connection:
            await _queries.end(connection, secret_hash=_hash(session.secret))
        self._known.pop(session.secret, None)


async def make_link(database: Database, subject: str) -> str:
    """Return the secret of a link that signs in once, within half an hour."""
    secret = secrets.token_urlsafe(32)
    async with database.transaction() as connection:
        now = database.clock.now()
        await _queries.sweep_links(connection, now=now)
        await _queries.add_link(
            connection, secret_hash=_hash(secret), subject=subject, now=now, expires_at=now + LINK_LIFETIME
        )
    return secret


async def _begin(connection: Connection, session: Session, now: datetime) -> None:
    await _queries.sweep_sessions(connection, now=now)
    await _queries.begin(
        connection,
        secret_hash=_hash(session.secret),
        subject=session.subject,
        role=session.role,
        now=now,
        expires_at=session.expires_at,
    )


def _hash(secret: str) -> bytes:
    # A secret of 256 random bits needs no salt, and no slow hash.
    return hashlib.sha256(secret.encode()).digest()
