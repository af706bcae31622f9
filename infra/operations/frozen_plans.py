"""A plan freezes the set that it acts on; its effects are shown first.

Making a plan writes down what a filter finds, and does nothing to it. The digest says which set that is: whoever
applies the plan (`plan_applying.py`) does it to that set and to nothing else, however much has come since. What is
chosen, what would follow and what is done is the kind's: `cancel_plans.py`, `discard_plans.py`.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar
from uuid import UUID, uuid4

import aiosql
from pydantic import BaseModel, Field

from infra.actions import Act, acting
from infra.errors import Refused
from infra.postgres import Connection, Database

FrozenPlanState: TypeAlias = Literal["planned", "applying", "finished", "aborted"]

Choice = TypeVar("Choice", bound=BaseModel)


class Effects(BaseModel):
    """These effects of a plan were shown."""

    def in_short(self) -> dict[str, int]:
        """Return the numbers, for the log of actions."""
        return {name: value for name, value in self if isinstance(value, int)}


E = TypeVar("E", bound=Effects)


class FrozenPlan(BaseModel, Generic[Choice, E]):
    """A plan, and how far it is."""

    DONE: ClassVar[str]
    """The field that counts the items that the plan was for; what became of them is called so too."""

    id: UUID
    state: FrozenPlanState
    filters: Choice
    effects: E
    digest: str
    reason: str | None = Field(description="Why, once somebody has applied it.")
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    total: int
    left: int

    @property
    def done(self) -> int:
        """Return how many items the plan has done its work on; others had changed."""
        return int(getattr(self, self.DONE))

    def so_far(self) -> dict[str, Any]:
        """Return how far it is, for the log of actions."""
        return {"state": self.state, self.DONE: self.done, "left": self.left}


class FrozenPlanSummary(BaseModel, Generic[Choice]):
    """A plan as a list shows it; each kind adds how many items it has."""

    id: UUID
    state: FrozenPlanState
    filters: Choice
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


Plan = TypeVar("Plan", bound=FrozenPlan[Any, Any])
Summary = TypeVar("Summary", bound=BaseModel)
Page = TypeVar("Page", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Choice, Plan, Summary, Page]):
    """Plans of one kind have this in common.

    Attributes:
        command: their command's name; their tables and what the log of actions says begin with it.
        action: how the log of actions calls what a batch does.
        because: the end of the sentence that asks why.
        longest_reason: characters of a reason that are kept.
        results: what may become of items, where the log of actions counts those of which there are none too.
        plan: makes a plan of its row.
        summary: the same of a list's row.
        page: makes a plan's page of its fields and `items`.
        queries: what `statements` returns.
        freeze: writes down the items of a new plan.
        effects_of: what would follow from a plan whose items stand.
    """

    command: str
    action: str
    because: str
    longest_reason: int
    plan: Callable[..., Plan]
    summary: Callable[..., Summary]
    page: Callable[..., Page]
    queries: Any
    freeze: Callable[[Connection, UUID, Choice], Awaitable[object]]
    effects_of: Callable[[Connection, UUID], Awaitable[Effects]]
    results: Sequence[str] = ()


def statements(command: str, *, counted: str, done: str, member: str) -> Any:  # noqa: ANN401 - aiosql's queries have no types
    """Return the statements that all kinds share, for the tables of one, and its own.

    Args:
        command: see `Kind`.
        counted: the field of its effects and of its summaries that counts the items.
        done: see `FrozenPlan.DONE`.
        member: what the digest says of an item, in SQL.
    """
    folder = Path(__file__).parent
    _, _, text = (folder / "frozen_plans.sql").read_text(encoding="utf-8").partition("\n\n")
    places = {"plans": f"{command}_plans", "items": f"{command}_plan_items", "counted": counted, "done": done}
    for place, filled in {**places, "member": member}.items():
        text = text.replace(f"/* {place} */", filled)
    return aiosql.from_str(f"{text}\n{(folder / f'{command}_plans.sql').read_text(encoding='utf-8')}", "asyncpg")


@dataclass(frozen=True, slots=True)
class FrozenPlans(Generic[Choice, Plan, Summary, Page]):
    """The plans of a kind in Postgres. Each method raises DependencyDown when it is away."""

    database: Database
    kind: Kind[Choice, Plan, Summary, Page]

    async def make(self, chosen: Choice, *, by: str) -> Plan:
        """Freeze what a filter finds. Nothing but the plan is written."""
        plan_id, queries = uuid4(), self.kind.queries
        filters = chosen.model_dump(mode="json", exclude_none=True)
        act = Act(f"{self.kind.command}.plan", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            now = self.database.clock.now()
            await queries.add_plan(connection, id=plan_id, filters=filters, created_by=by, now=now)
            await self.kind.freeze(connection, plan_id, chosen)
            await queries.analyze_items(connection)
            effects = await self.kind.effects_of(connection, plan_id)
            digest = await self.digest_of(connection, plan_id)
            await queries.set_effects(connection, id=plan_id, effects=effects.model_dump(mode="json"), digest=digest)
            act.effects = {**effects.in_short(), "filters": filters, "digest": digest}
            return await self.read(connection, plan_id)

    async def get(self, plan_id: UUID) -> Plan:
        """Return a plan. Raises Refused if there is none."""
        async with self.database.transaction() as connection:
            return await self.read(connection, plan_id)

    async def latest(self, *, limit: int = 50, before: datetime | None = None) -> Sequence[Summary]:
        """Return plans, the latest first, made before a time."""
        async with self.database.transaction() as connection:
            rows = self.kind.queries.latest(connection, limit=limit, before=before)
            return [self.kind.summary(**row) async for row in rows]

    async def page(self, plan_id: UUID, *, after: int = 0, limit: int = 100) -> Page:
        """Return a plan and its items after a position. Raises Refused if there is none."""
        async with self.database.transaction() as connection:
            plan = await self.read(connection, plan_id)
            rows = self.kind.queries.items(connection, plan_id=plan_id, after=after, limit=limit)
            return self.kind.page(**dict(plan), items=[dict(row) async for row in rows])

    async def abort(self, plan_id: UUID) -> Plan:
        """End a plan before its time; what it has done stays so. One that has ended stays as it is.

        Whoever is applying it stops before its next batch. Raises Refused if there is none.
        """
        act = Act(f"{self.kind.command}.abort", f"plan {plan_id}")
        async with acting(self.database, act) as connection:
            await self.kind.queries.end(connection, id=plan_id, state="aborted", now=self.database.clock.now())
            plan = await self.read(connection, plan_id)
            act.effects = plan.so_far()
            return plan

    async def read(self, connection: Connection, plan_id: UUID) -> Plan:
        """Read a plan in the caller's transaction. Raises Refused if there is none."""
        row = await self.kind.queries.plan(connection, id=plan_id)
        if row is None:
            make = f"make one with `teamfit {self.kind.command} plan`"
            raise Refused("plan_not_found", f"plan {plan_id}: not found; {make}")
        return self.kind.plan(**row)

    async def digest_of(self, connection: Connection, plan_id: UUID) -> str:
        """Return the digest of a plan's set as it stands."""
        return str(await self.kind.queries.digest_of(connection, plan_id=plan_id))
