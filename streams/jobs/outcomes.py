"""Each run of a job ends in exactly one way. The first to write its row in `job_outcomes` decides it.

Completing, failing, rejecting and cancelling a run all pass through here, inside the transaction of their effect, so
two stages can never both end a run: the second one reads what the first has decided.

A run that failed, was rejected or cancelled has one code, which customers see as a job's `error_code`. Stages raise
them where they arise; a test holds the list against what they raise, and against docs/front-ends.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import aiosql
import orjson

from infra import telemetry
from infra.clock import Clock
from infra.postgres import Connection, Database, columns
from streams.delivery.deliveries import Record
from streams.delivery.policy import error_code
from streams.jobs.events import Failed, JobAccepted, JobCancelled, JobEvent, JobFailed, JobId, JobRequested
from streams.jobs.facts import fact_after
from streams.jobs.topics import JOB_EVENTS, record

_queries = aiosql.from_path(Path(__file__).with_name("outcomes.sql"), "asyncpg")

ERROR_CODES: Final[Mapping[str, str]] = {
    "cancelled": "The job was withdrawn; `error_message` has the reason.",
    "organization_not_found": "There is no such organization.",
    "team_not_found": "The organization has no such team, or has it no more.",
    "subscription_required": "The organization has no active paid subscription.",
    "trust_too_low": "The organization's trust score is too low.",
    "quota_exceeded": "The month's quota is used up.",
    "budget_exceeded": "The month's budget is used up.",
    "too_many_requests": "The organization asked too fast, or had too many jobs waiting.",
    "run_at_too_far": "`run_at` is more than 366 days ahead.",
    "spend_cap_reached": "The job has used as many tokens as one job may.",
    "llm_refusal": "The LLM declined the wish. Another wording may help.",
    "llm_content_filter": "The LLM's content filter stopped the wish or its answer. Another wording may help.",
    "llm_prompt_too_long": "The wish and the team's materials are longer than the LLM takes.",
    "llm_no_endpoint": "No LLM endpoint may be asked for this organization.",
    "llm_price_missing": "The organization has a budget, and the LLM's model has no price.",
    "llm_truncated": "The answer was longer than it may be. A simpler wish may help.",
    "llm_invalid_output": "Each try brought something other than three activities.",
    "llm_bad_request": "The LLM's endpoint did not take the request.",
    "llm_misconfigured": "The LLM's endpoint was not there at each try.",
    "llm_rate_limited": "The LLM's endpoint was too busy at each try.",
    "llm_server_error": "The LLM's endpoint failed at each try.",
    "llm_timeout": "The LLM did not answer in time at each try.",
    "llm_connection_lost": "The connection to the LLM was lost at each try.",
    "timeout": "A stage did not finish in time at each try.",
    "invalid_event": "The request is no valid event; `error_message` names the field. Mend it and send it again.",
    "poison_event": "The job's event ended the worker that handled it, several times.",
    "dead_lettered": "The job's event could not be processed.",
    "expired": "The job stood still for too long, and its request is lost.",
    "interrupted": "An operator started the job again; its next run follows.",
    "internal_error": "A bug on our side.",
}
"""Each code, and what it means to a customer."""

# What is said of these is about the customer's own job, and written for the customer.
_TOLD_IN_FULL: Final = frozenset({"team_not_found", "run_at_too_far", "invalid_event", "poison_event", "interrupted"})


def sentence_for_customer(code: str, message: str) -> str:
    """Return what a customer reads as a job's `error_message`.

    An error's own words are for operators: they name addresses, models and settings. They stay in the failed event and
    in the log.

    Args:
        code: how the job ended.
        message: the error's own words.
    """
    if code in _TOLD_IN_FULL and message:
        return message
    return ERROR_CODES.get(code, ERROR_CODES["internal_error"])


RunOutcome: TypeAlias = Literal["completed", "failed", "rejected", "cancelled"]


@dataclass(frozen=True, slots=True)
class Decided:
    """A run's end, and the fact that was kept with it."""

    outcome: RunOutcome
    fact: Record | None


async def decide_outcome(
    connection: Connection, job_id: JobId, run: int, outcome: RunOutcome, *, fact: JobEvent | None = None
) -> RunOutcome:
    """Decide how a run ends, unless it is decided; return the decision that stands.

    Two transactions that decide the same run wait for each other. Repeating the call changes nothing.

    Args:
        connection: inside a transaction; this neither commits nor publishes.
        job_id: the job.
        run: its run.
        outcome: how it should end.
        fact: the terminal fact, kept with the decision where nothing else in the database could make it again.
    """
    kept = None if fact is None else fact.model_dump(mode="json", exclude_none=True)
    await _queries.decide(connection, job_ids=[job_id], runs=[run], outcome=outcome, fact=kept)
    decided: RunOutcome = (await _queries.outcome_of(connection, job_id=job_id, run=run))["outcome"]
    return decided


async def terminal_fact(connection: Connection, job_id: JobId, run: int) -> Record | None:
    """Return the fact kept with a run's outcome, or None. It can be published again."""
    row = await _queries.outcome_of(connection, job_id=job_id, run=run)
    return None if row is None else _kept(job_id, row["fact"])


def _kept(job_id: JobId, fact: object) -> Record | None:
    return None if fact is None else Record(JOB_EVENTS, str(job_id).encode(), orjson.dumps(fact))


async def reject_runs(connection: Connection, runs: Sequence[tuple[JobId, int]]) -> None:
    """Decide that these runs were rejected, unless they are decided."""
    await _queries.decide(
        connection, job_ids=[job_id for job_id, _ in runs], runs=[run for _, run in runs], outcome="rejected", fact=None
    )


async def complete_runs(connection: Connection, runs: Sequence[tuple[JobId, int]]) -> set[tuple[JobId, int]]:
    """Complete these runs unless they are decided. Return those whose outcome is `completed`."""
    rows = _queries.complete(connection, job_ids=[job_id for job_id, _ in runs], runs=[run for _, run in runs])
    return {(JobId(row["job_id"]), row["run"]) async for row in rows if row["outcome"] == "completed"}


async def end_runs(
    connection: Connection, facts: Sequence[JobFailed] | Sequence[JobCancelled], outcome: RunOutcome
) -> Mapping[tuple[JobId, int], Decided]:
    """Decide that the runs of these facts ended so; return what stands of each. A decision that was made before stands.

    Like `decide_outcome` for each of them, in two statements however many they are.
    """
    runs = columns(facts, job_ids="job_id", runs="run")
    kept = [fact.model_dump(mode="json", exclude_none=True) for fact in facts]
    await _queries.decide_each(connection, **runs, outcome=outcome, facts=kept)
    rows = _queries.outcomes_of(connection, **runs)
    return {
        (JobId(row["job_id"]), row["run"]): Decided(row["outcome"], _kept(row["job_id"], row["fact"]))
        async for row in rows
    }


async def fail_runs(connection: Connection, facts: Sequence[JobFailed]) -> Mapping[tuple[JobId, int], Decided]:
    """Decide that the runs of these facts failed, as `end_runs` does."""
    return await end_runs(connection, facts, "failed")


async def fail_run(
    database: Database, clock: Clock, event: JobRequested | JobAccepted, error: Exception
) -> Sequence[Record]:
    """Fail a run and return the JobFailed fact. Nothing is returned if the run had ended in another way.

    A repeat returns the fact of the first decision.

    Raises:
        DependencyDown: Postgres is away.
    """
    fact = job_failed(event, error, clock)
    async with database.transaction() as connection:
        (decided,) = (await fail_runs(connection, [fact])).values()
    if decided.outcome != "failed":
        return ()
    telemetry.JOBS.labels("failed").inc()
    return (decided.fact or record(JOB_EVENTS, fact),)


def job_failed(event: JobEvent, error: Exception, clock: Clock) -> JobFailed:
    """Build the fact that a run failed, in the customer's words."""
    code = error_code(error)
    data = Failed(
        organization_id=event.data.organization_id, code=code, error_message=sentence_for_customer(code, str(error))
    )
    return fact_after(event, JobFailed, data, at=clock.now())
