"""A plan's effects are predicted from what is known when the plan is made."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import aiosql
from pydantic import BaseModel, Field

from infra.postgres import Connection
from streams.jobs.admission import period_of
from streams.jobs.stages import RELEASED_TO, RUN_TOPICS
from streams.jobs.topics import JOB_EVENTS, JOB_REQUESTS

_queries = aiosql.from_path(Path(__file__).with_name("plans.sql"), "asyncpg")

# Enough for an average, few enough that it says what a run costs now.
_CALLS_AVERAGED = 1_000
# The plan's items have all of them.
_LISTED = 100


class OrganizationCount(BaseModel):
    """The number of events of an organization."""

    organization_id: str | None
    events: int


class ErrorCount(BaseModel):
    """The number of events that failed in a stage with an error."""

    stage: str
    error_type: str
    events: int


# Why an event of a plan is not sent, for people.
BECAUSE: Final[Mapping[str, str]] = {
    "succeeded": "the job has since succeeded",
    "cancelled": "the job is cancelled",
    "running": "a later run of the job is under way",
    "same_job": "another event of the plan starts the same job again",
    "other_organization": "the job belongs to another organization than the event says",
    "no_destination": "its topic and consumer group are none of the pipeline's",
    "no_run_left": "the job's run cannot be counted any further",
}


class Excluded(BaseModel):
    """Events that are not sent, and why."""

    because: str
    events: int
    job_ids: list[UUID] = Field(description="Their jobs, a hundred at most.")


class QuotaEffect(BaseModel):
    """The quota of an organization that reruns would take."""

    organization_id: str
    units: int
    given_back: int = Field(description="Units held by runs that are ended first.")
    monthly_quota: int
    units_left: int = Field(description="In the current period, before this plan.")

    @property
    def short(self) -> int:
        """Return how many reruns would be rejected if nothing else changed."""
        return max(0, self.units - self.given_back - self.units_left)


class TokenEstimate(BaseModel):
    """The tokens that the reruns would cost at the LLM. None where nothing is known."""

    per_run: int | None
    total: int | None
    how: str


class TopicCount(BaseModel):
    """The number of records that a topic gets. `group` is set when one consumer group alone acts on them."""

    topic: str
    group: str | None = None
    records: int


class Behind(BaseModel):
    """Other open failed events of the jobs in a plan."""

    stage: str
    error_type: str
    events: int
    jobs: int


class Effects(BaseModel):
    """The effects that a plan would have.

    Attributes:
        ends_first: runs that have not ended, and are ended as failed before the next one starts.
        follows: the records that the stages write in turn if every rerun is admitted and completes. Without those that
            tell of activities while they are written: how many come is not known before.
        behind: what stays failed of the same jobs, because the plan's filter does not find it.
    """

    events: int
    reruns: int
    resends: int
    ends_first: int
    excluded: list[Excluded]
    by_organization: list[OrganizationCount]
    by_error: list[ErrorCount]
    quota: list[QuotaEffect]
    tokens: TokenEstimate
    sends: list[TopicCount]
    follows: list[TopicCount]
    behind: list[Behind]


async def effects_of(connection: Connection, plan_id: UUID, *, now: datetime) -> Effects:
    """Read the effects of a plan in the caller's transaction."""
    sends = [row async for row in _queries.sends(connection, plan_id=plan_id)]
    reruns = sum(row["records"] for row in sends if row["action"] == "rerun")
    ends_first = sum(row["ends_first"] for row in sends)
    resends = [
        TopicCount(topic=row["topic"], group=row["stage"], records=row["records"])
        for row in sends
        if row["action"] == "resend"
    ]
    by_error = [ErrorCount(**row) async for row in _queries.by_error(connection, plan_id=plan_id)]
    quota = [row async for row in _queries.quota(connection, plan_id=plan_id, period=period_of(now))]
    return Effects(
        events=sum(one.events for one in by_error),
        reruns=reruns,
        resends=sum(one.records for one in resends),
        ends_first=ends_first,
        excluded=[Excluded(**row) async for row in _queries.excluded(connection, plan_id=plan_id, listed=_LISTED)],
        by_organization=[
            OrganizationCount(**row) async for row in _queries.by_organization(connection, plan_id=plan_id)
        ],
        by_error=by_error,
        quota=[QuotaEffect(**row) for row in quota],
        tokens=await _tokens(connection, reruns),
        sends=_some(TopicCount(topic=JOB_REQUESTS, records=reruns), TopicCount(topic=JOB_EVENTS, records=ends_first))
        + resends,
        follows=follows_of(reruns),
        behind=[Behind(**row) async for row in _queries.behind(connection, plan_id=plan_id)],
    )


def follows_of(reruns: int) -> list[TopicCount]:
    """Return what the stages write in turn for each run that passes them all."""
    facts = 2 * reruns  # JobStarted and JobCompleted
    passed = [TopicCount(topic=RUN_TOPICS[stage][0], records=reruns) for stage in RELEASED_TO]
    return _some(*passed, TopicCount(topic=JOB_EVENTS, records=facts))


async def _tokens(connection: Connection, reruns: int) -> TokenEstimate:
    if not reruns:
        return TokenEstimate(per_run=0, total=0, how="no event is generated anew")
    row = await _queries.tokens_per_run(connection, latest=_CALLS_AVERAGED)
    if row["per_run"] is None:
        return TokenEstimate(per_run=None, total=None, how="unknown: no call with a known cost is on record")
    return TokenEstimate(
        per_run=row["per_run"],
        total=row["per_run"] * reruns,
        how=f"{reruns} reruns at {row['per_run']} tokens, the average of the latest {row['runs']} runs of known cost",
    )


def _some(*counts: TopicCount) -> list[TopicCount]:
    return [count for count in counts if count.records]
