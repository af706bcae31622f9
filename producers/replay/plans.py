"""Plans: made, looked at, aborted. Applying them is in `apply`."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias
from uuid import UUID, uuid4

import aiosql
from pydantic import BaseModel, Field

from infra.actions import Act, acting
from infra.clock import Clock
from infra.postgres import Connection, Database, plan_for_values
from producers.replay.effects import Effects, effects_of
from producers.replay.errors import UnknownPlan
from producers.replay.failed import Filter
from producers.replay.records import starts_run
from streams.delivery.dead_letters import REASON_GIVEN_UP
from streams.jobs.stages import CONSUMER_GROUPS, RUN_ENTRIES

_queries = aiosql.from_path(Path(__file__).with_name("plans.sql"), "asyncpg")
_sending = aiosql.from_path(Path(__file__).with_name("sending.sql"), "asyncpg")

PlanState: TypeAlias = Literal["planned", "applying", "finished", "aborted"]

# Events in memory at a time; each may have a megabyte.
_READ_AT_ONCE: Final = 100
_DESTINATIONS: Final = [(topic, group) for topic, groups in CONSUMER_GROUPS.items() for group in groups]


class Plan(BaseModel):
    """A plan and how far it is."""

    id: UUID
    state: PlanState
    filters: Filter
    effects: Effects = Field(description="What the plan said when it was made.")
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    total: int = Field(description="Events to send; those that are excluded are not counted.")
    sent: int


class PlanSummary(BaseModel):
    """A plan as a list shows it. `events` is how many its filter found."""

    id: UUID
    state: PlanState
    filters: Filter
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    events: int


class PlanItem(BaseModel):
    """One event of a plan.

    Attributes:
        others_behind: other failed events of the same job that were open when the plan was made.
        became: of one that was sent, how its job stands now, `sent` before that is known, or `failed again`.
    """

    position: int
    failed_event_id: UUID
    action: Literal["rerun", "resend", "exclude"]
    excluded_because: str | None
    others_behind: int
    job_id: UUID | None
    run: int | None
    next_run: int | None
    ends_first: bool
    sent_at: datetime | None
    stage: str
    error_type: str
    organization_id: str | None
    became: str | None = None


class PlanPage(Plan):
    """A plan, and a page of its events in the order of sending."""

    items: list[PlanItem]


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans in Postgres. Each method raises DependencyDown when it is away."""

    database: Database
    clock: Clock

    async def make(self, chosen: Filter, *, by: str) -> Plan:
        """Make a plan for the open failed events that a filter finds. Nothing but the plan is written.

        Raises:
            Refused: the filter has an unknown stage or reason.
        """
        chosen.require_known()
        plan_id, now = uuid4(), self.clock.now()
        act = Act("replay.plan", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            await _queries.add_plan(
                connection,
                id=plan_id,
                filters=chosen.model_dump(mode="json", exclude_none=True),
                created_by=by,
                now=now,
            )
            await plan_for_values(connection)
            await _queries.add_items(
                connection,
                plan_id=plan_id,
                **chosen.model_dump(),
                topics=[topic for topic, _ in _DESTINATIONS],
                stages=[stage for _, stage in _DESTINATIONS],
                start_topics=[topic for topic, _, _ in RUN_ENTRIES],
                start_stages=[stage for _, stage, _ in RUN_ENTRIES],
                start_types=[event_type for _, _, event_type in RUN_ENTRIES],
            )
            await _resend_unreadable(connection, plan_id)
            # What reads the items next should know how many there are.
            await connection.execute("ANALYZE replay_plan_items")
            effects = await effects_of(connection, plan_id, now=now)
            await _queries.set_effects(connection, id=plan_id, effects=effects.model_dump(mode="json"))
            act.effects = {
                "events": effects.events,
                "reruns": effects.reruns,
                "filters": chosen.model_dump(mode="json", exclude_none=True),
            }
            return await read_plan(connection, plan_id)

    async def get(self, plan_id: UUID) -> Plan:
        """Return a plan. Raises UnknownPlan."""
        async with self.database.transaction() as connection:
            return await read_plan(connection, plan_id)

    async def latest(self, *, limit: int = 50, before: datetime | None = None) -> list[PlanSummary]:
        """Return plans, the latest first, made before a time."""
        async with self.database.transaction() as connection:
            return [PlanSummary(**row) async for row in _queries.latest(connection, limit=limit, before=before)]

    async def page(self, plan_id: UUID, *, after: int = 0, limit: int = 100) -> PlanPage:
        """Return a plan and the events after a position, in the order of sending. Raises UnknownPlan."""
        async with self.database.transaction() as connection:
            plan = await read_plan(connection, plan_id)
            rows = _queries.items(connection, plan_id=plan_id, after=after, limit=limit)
            return PlanPage(**dict(plan), items=[PlanItem(**row) async for row in rows])

    async def abort(self, plan_id: UUID) -> Plan:
        """End a plan before its time; what it has sent stays sent. One that has ended stays as it is.

        Whoever is applying it stops before its next batch. Raises UnknownPlan.
        """
        act = Act("replay.abort", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            await _sending.end(connection, plan_id=plan_id, state="aborted", now=self.clock.now())
            plan = await read_plan(connection, plan_id)
            act.effects = {"state": plan.state, "sent": plan.sent, "total": plan.total}
            return plan


async def _resend_unreadable(connection: Connection, plan_id: UUID) -> None:
    """Make resends of what only looked like an event that starts a run."""
    after = 0
    while True:
        read = [
            (row["position"], starts_run(row["event"], row["headers"]))
            async for row in _queries.unproven(
                connection, plan_id=plan_id, given_up=REASON_GIVEN_UP, after=after, limit=_READ_AT_ONCE
            )
        ]
        if unreadable := [position for position, is_start in read if not is_start]:
            await _queries.resend_instead(connection, plan_id=plan_id, positions=unreadable)
        if len(read) < _READ_AT_ONCE:
            return
        after = read[-1][0]


async def read_plan(connection: Connection, plan_id: UUID) -> Plan:
    """Read a plan in the caller's transaction. Raises UnknownPlan."""
    row = await _queries.plan(connection, id=plan_id)
    if row is None:
        raise UnknownPlan(plan_id)
    return Plan(**row)
