"""The log of actions says who did what, when, why, and with which effects.

Every operation of an operator happens inside `acting`, whichever face it comes from: its row is written in the
transaction that acts, so there is none without the other. If the process dies
- before the commit: nothing is done, and nothing is logged;
- after a refusal has rolled back, before it is logged: nothing is done, and one refusal is missing.

Who acts is known where a request or a command begins, and the operations are called from many places: so it travels in
the context, as a log line's fields do.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import aiosql
import orjson
import structlog

from infra.errors import DependencyDown, TeamfitError
from infra.postgres import Connection, Database, Session
from infra.texts import storable

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("actions.sql"), "asyncpg")

Face: TypeAlias = Literal["cli", "api", "console", "program"]

_LONGEST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody acts, by the command line, the API or the console. `program`: code that is none of these."""

    name: str
    face: Face


_NOBODY: Final = Actor("unknown", "program")
_actor: ContextVar[Actor] = ContextVar("actor", default=_NOBODY)


def act_as(name: str, face: Face) -> None:
    """Let this person act for the rest of the request."""
    _actor.set(Actor(name, face))


def current_actor() -> Actor:
    """Return who acts."""
    return _actor.get()


@contextmanager
def acting_as(name: str, face: Face) -> Iterator[None]:
    """Let this person act in this block."""
    token = _actor.set(Actor(name, face))
    try:
        yield
    finally:
        _actor.reset(token)


@dataclass(slots=True)
class Act:
    """An operator's action.

    Attributes:
        action: what is done, as `quota.repair`.
        target: to what, as `organization acme`.
        reason: why, in the operator's words.
        effects: what follows, as it was shown or came out. May be filled until the action ends.
    """

    action: str
    target: str
    reason: str | None = None
    effects: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def acting(database: Database, act: Act) -> AsyncIterator[Connection]:
    """Give a transaction in which an action happens and is logged. What refuses it is logged too, and raised.

    Raises:
        DependencyDown: Postgres went away. Whether the action took effect is unknown; if so, its row is there.
    """
    try:
        async with database.transaction() as connection:
            yield connection
            await note(connection, act)
    except DependencyDown:
        raise
    except TeamfitError as error:
        await note_refusal(database, act, str(error))
        raise


async def note(connection: "Connection | Session", act: Act, *, refused: str | None = None) -> None:
    """Write the row of an action, in the caller's transaction. This is the one place where they are written.

    Args:
        connection: whose transaction acts.
        act: what is done.
        refused: why it was not done.
    """
    actor = _actor.get()
    await _queries.note(
        connection,
        actor=storable(actor.name, _LONGEST),
        face=actor.face,
        action=act.action,
        target=storable(act.target, _LONGEST),
        reason=None if act.reason is None else storable(act.reason, _LONGEST),
        effects=_document(act.effects),
        outcome="done" if refused is None else "refused",
        why=None if refused is None else storable(refused, _LONGEST),
    )


async def note_refusal(database: Database, act: Act, why: str) -> None:
    """Log an action that was refused. While Postgres is away it stands in the process's log alone."""
    actor = _actor.get()
    if actor.face != "cli":  # a command says it by itself
        log.warning("action.refused", actor=actor.name, action=act.action, target=act.target, why=why)
    try:
        async with database.transaction() as connection:
            await note(connection, act, refused=why)
    except DependencyDown as down:
        log.warning("action.refusal_not_logged", why=str(down))


def _document(effects: Mapping[str, Any]) -> str:
    # Postgres's JSON takes no NUL, however it is written.
    return orjson.dumps(effects, default=str).decode().replace("\\u0000", "\\ufffd")
