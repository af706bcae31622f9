"""Checking every invariant in one snapshot: read-only, one statement after another, in bounded memory."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosql
import asyncpg

from consumers.projection.refold import Session, differing_columns, find_gaps, fold_archive
from infra.errors import TeamfitError
from infra.verify.invariants import INVARIANTS, Invariant
from infra.verify.report import Finding, Report

_queries: Any = aiosql.from_path(Path(__file__).with_name("checks.sql"), "asyncpg")

# A fact travels from Postgres over the broker to its archive and the ledger. With a backlog that takes minutes.
PATIENCE = timedelta(minutes=15)
# A snapshot that stays open keeps the server from cleaning up what it still sees.
STATEMENT_TIMEOUT = timedelta(minutes=2)
EXAMPLES = 20


class CheckTimedOut(TeamfitError):
    """A statement took longer than it may."""


async def verify(
    connection: Session,
    *,
    settled: bool = False,
    llm_calls: int | None = None,
    patience: timedelta = PATIENCE,
    statement_timeout: timedelta = STATEMENT_TIMEOUT,
    examples: int = EXAMPLES,
) -> Report:
    """Check every invariant and say what breaks it.

    Runs in one REPEATABLE READ READ ONLY transaction of its own, so it sees one moment, locks nothing and changes
    nothing; the connection must not be in a transaction.

    Args:
        settled: nothing should be under way. Nothing may be live then, and there is no patience.
        llm_calls: how many calls the LLM's provider counted; None if that is unknown.
        patience: how long an effect may lag behind its cause.
        statement_timeout: of each statement. Longer: larger databases; shorter: kinder to a busy server.
        examples: the most IDs named for each invariant.

    Raises:
        CheckTimedOut: a statement took longer than `statement_timeout`.
    """
    wanted = [invariant for invariant in INVARIANTS if settled or not invariant.at_rest]
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            milliseconds = max(1, round(statement_timeout.total_seconds() * 1000))
            await connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
            at = await connection.fetchval("SELECT now()")
            lag = timedelta() if settled else patience
            findings = [
                *[await _check(connection, invariant, lag, examples) for invariant in wanted],
                await _calls(connection, llm_calls),
                await _fold(connection, examples),
                await _gaps(connection, examples),
            ]
    except asyncpg.QueryCanceledError as error:
        raise CheckTimedOut(
            f"{error} ({statement_timeout.total_seconds():g} s); give the check more time, or run it on a replica"
        ) from error
    return Report(at, settled, findings)


async def _check(connection: Session, invariant: Invariant, patience: timedelta, examples: int) -> Finding:
    query = getattr(_queries, invariant.query)
    parameters: dict[str, object] = {"size": examples}
    if invariant.patient:
        parameters["patience"] = patience
    (row,) = [row async for row in query(connection, **parameters)]
    return Finding(
        name=invariant.name,
        statement=invariant.statement,
        checked=row["checked"],
        violations=row["found"],
        examples=row["examples"],
        detail=row.get("detail") or "",
        next_step=invariant.next_step,
    )


async def _calls(connection: Session, llm_calls: int | None) -> Finding:
    recorded = int(await _queries.recorded_calls(connection))
    made = "not given" if llm_calls is None else str(llm_calls)
    missing = max(0, (llm_calls or 0) - recorded)
    return Finding(
        name="calls are recorded",
        statement="every call that the LLM's provider counted has a row in generation_attempts",
        checked=llm_calls or 0,
        violations=missing,
        examples=[f"{missing} calls without a record"] if missing else [],
        detail=f"{recorded} on record, at the provider {made}",
        next_step="Somebody else uses the same key, or calls were made and not recorded: compare the provider's log "
        "with the times in generation_attempts.",
    )


async def _fold(connection: Session, examples: int) -> Finding:
    jobs = wrong = 0
    named: list[str] = []

    def found(example: str) -> None:
        nonlocal wrong
        wrong += 1
        if len(named) < examples:
            named.append(example)

    async for page in fold_archive(connection):
        jobs += len(page.jobs)
        for folded in page.jobs:
            if folded.unreadable is not None:
                found(f"{folded.state.job_id} {folded.unreadable}")
        for job_id, columns in (await differing_columns(connection, page.jobs)).items():
            found(f"{job_id} " + ("has no row" if columns == ["job_id"] else ", ".join(columns)))
    return Finding(
        name="read model = fold of the archive",
        statement="folding a job's archived events again gives its row in customization_jobs",
        checked=jobs,
        violations=wrong,
        examples=named,
        detail="",
        next_step="Run teamfit projection rebuild --dry-run, then without it: it repairs the rows while the "
        "service runs.",
    )


async def _gaps(connection: Session, examples: int) -> Finding:
    gaps = await find_gaps(connection, examples=examples)
    return Finding(
        name="no gap in the archive",
        statement="the archive has the events for all that the read model shows",
        checked=gaps.checked,
        violations=gaps.found,
        examples=gaps.examples,
        detail="",
        next_step="Rows were written or events removed by hand. Look for the events among the failed events and in the "
        "streams; a rebuild cannot bring them back, and leaves a row alone if job_outcomes bears it out.",
    )
