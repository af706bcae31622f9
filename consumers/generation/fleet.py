"""The fleet keeps its knowledge of an LLM endpoint in Postgres.

It has the form to ask in, holds, and the cost of probes.

A hold is for the workers that share endpoint, model and key. While it stands no worker calls; when its time is over one
worker of the fleet probes with a prompt of our own. A probe that succeeds ends the hold, one that fails doubles the
wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import aiosql
import structlog

from consumers.generation.blame import Verdict
from consumers.generation.dialect import Dialect
from consumers.generation.hold import Caller
from infra.errors import DependencyDown
from infra.postgres import Connection, Database
from infra.settings import Settings
from streams.jobs.completion import Usage

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("fleet.sql"), "asyncpg")

# The first wait of a hold, doubled up to the cap. A longer cap spares an endpoint that is away; a shorter one finds it
# sooner when it is back.
_FIRST_WAIT: Final = timedelta(seconds=0.5)
_LONGEST_WAIT: Final = timedelta(seconds=30)
# A probe that gives no answer for so long is no success; the worker that sent it may have died as well.
PROBE_TIME: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class HeldEndpoint:
    """A hold that stands, as an operator sees it."""

    endpoint: str
    model: str
    blame: str
    code: str
    sentence: str
    held_at: datetime
    probes: int
    next_probe_in: timedelta


@dataclass(frozen=True, slots=True)
class LearnedDialect:
    """An operator sees this form in which the endpoint is asked."""

    endpoint: str
    model: str
    completion_format: str
    form: str
    answer_limit: str
    takes_system: bool
    streams: bool | None
    why: str
    learned_at: datetime


class Fleet:
    """Reads and writes it for one caller, in one transaction each. All raise DependencyDown without Postgres."""

    def __init__(self, database: Database, settings: Settings) -> None:
        caller = Caller.of(settings)
        self._database = database
        self._model = {"endpoint": caller.endpoint, "model": caller.model}
        self._asked = {**self._model, "completion_format": settings.completion_format}
        self._is_auto = settings.completion_format == "auto"
        self._caller = {**self._model, "credential": caller.credential}
        self._uncounted: list[tuple[str | None, Usage | None, bool]] = []

    async def dialect(self) -> Dialect | None:
        """Return how the endpoint is asked, if that is known."""
        async with self._database.transaction() as connection:
            row = await _queries.dialect(connection, **self._asked)
        return Dialect(row["form"], row["answer_limit"], row["takes_system"], self._is_auto) if row else None

    async def begin_learning(self, lease: timedelta) -> bool:
        """Return whether this worker has the turn to learn, for the lease's time."""
        async with self._database.transaction() as connection:
            return bool(await _queries.begin_learning(connection, **self._asked, lease=lease))

    async def end_learning(self) -> None:
        """Give the turn back."""
        async with self._database.transaction() as connection:
            await _queries.end_learning(connection, **self._asked)

    async def learned(self, dialect: Dialect, why: str) -> None:
        """Tell the fleet how the endpoint is asked."""
        async with self._database.transaction() as connection:
            await _queries.learned(
                connection,
                **self._asked,
                form=dialect.form,
                answer_limit=dialect.answer_limit,
                takes_system=dialect.takes_system,
                why=why,
            )

    async def hold(self, verdict: Verdict) -> timedelta | None:
        """Hold the fleet; return until its next probe, or None if it was held already."""
        async with self._database.transaction() as connection:
            row = await _queries.hold(connection, **self._caller, **_of(verdict))
        return row["wait"] if row else None

    async def held(self) -> tuple[str | None, timedelta | None, str | None]:
        """Return why the fleet is held, until when and who is to blame; see `Hold.learn`."""
        async with self._database.transaction() as connection:
            row = await _queries.held(connection, **self._caller)
        return (row["sentence"], row["next_probe_in"], row["blame"]) if row else (None, None, None)

    async def take_probe(self) -> bool:
        """Return whether this worker has the turn to probe."""
        async with self._database.transaction() as connection:
            return bool(await _queries.take_probe(connection, **self._caller, probe_time=PROBE_TIME))

    async def probe_failed(self, verdict: Verdict) -> timedelta:
        """Put the next probe off; return for how long."""
        async with self._database.transaction() as connection:
            wait: timedelta | None = await _queries.probe_failed(connection, **self._caller, **_of(verdict))
        return wait or _FIRST_WAIT

    async def probe_passed(self) -> None:
        """End the hold."""
        async with self._database.transaction() as connection:
            await _queries.probe_passed(connection, **self._caller)

    async def calls_succeed(self) -> None:
        """Let the next hold begin with a short wait again."""
        async with self._database.transaction() as connection:
            await _queries.calls_succeed(connection, **self._caller)

    async def begin_probe(self) -> str | None:
        """Record a call for no job before it is made; return its month.

        A worker that dies while it asks so leaves a call whose cost is unknown, and no call without a record. While
        Postgres is away there is None, and `end_probe` records the call.
        """
        try:
            async with self._database.transaction() as connection:
                return str(await _queries.begin_probe(connection, **self._model))
        except DependencyDown:
            return None

    async def end_probe(self, month: str | None, usage: Usage | None, *, maybe_billed: bool) -> None:
        """Record what the call cost. While Postgres is away, it is kept for the next one."""
        if month is None or usage is not None or not maybe_billed:
            self._uncounted.append((month, usage, maybe_billed))
        counting, self._uncounted = self._uncounted, []
        try:
            async with self._database.transaction() as connection:
                for begun, cost, is_unknown in counting:
                    await _queries.end_probe(
                        connection,
                        **self._model,
                        month=begun or await _queries.begin_probe(connection, **self._model),
                        maybe_billed=is_unknown,
                        prompt_tokens=(cost and cost.prompt_tokens) or 0,
                        completion_tokens=(cost and cost.completion_tokens) or 0,
                    )
        except DependencyDown as error:
            self._uncounted += counting
            log.warning("llm.probe_not_counted", why=str(error))


def _of(verdict: Verdict) -> dict[str, object]:
    return {
        "blame": verdict.blame,
        "code": verdict.code,
        "sentence": verdict.sentence,
        "wait": max(verdict.wait or _FIRST_WAIT, _FIRST_WAIT),
        "cap": _LONGEST_WAIT,
    }


async def holds(connection: Connection) -> list[HeldEndpoint]:
    """Return every hold that stands."""
    return [HeldEndpoint(**row) async for row in _queries.holds(connection)]


async def dialects(connection: Connection) -> list[LearnedDialect]:
    """Return what was learned of every endpoint and model."""
    return [LearnedDialect(**row) async for row in _queries.dialects(connection)]


async def forget_dialects(connection: Connection, endpoint: str | None) -> Sequence[tuple[str, str]]:
    """Forget what was learned of an endpoint, or of all; return endpoints and models. The next call learns again."""
    return [(row["endpoint"], row["model"]) async for row in _queries.forget_dialects(connection, endpoint=endpoint)]
