"""Plans of operators are applied here: cancellations of jobs, and discards of failed events.

The set is held against the digest that was shown, one process at a time works through it at a rate, and each batch is
a transaction of its own. What a batch does is its caller's.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from time import monotonic
from typing import Any, Generic, Protocol, Required, TypedDict, TypeVar, Unpack
from uuid import UUID

from infra.actions import Act, acting
from infra.errors import Refused
from infra.postgres import Connection, Database
from infra.texts import storable
from producers.applying import Pace, alone, uninterrupted


class Frozen(Protocol):
    """A plan whose set stands."""

    id: UUID
    state: Any
    digest: str
    total: int
    left: int


P = TypeVar("P", bound=Frozen)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a plan."""

    total: int
    left: int


class How(TypedDict, total=False):
    """The way in which a plan is applied.

    Attributes:
        because: why. What was said first holds.
        rate: items per second.
        report: told of the progress after each batch.
        at_most: stop in good order after this long, with the plan unfinished.
    """

    because: Required[str]
    rate: Required[float]
    report: Callable[[Progress], None]
    at_most: timedelta


@dataclass(frozen=True, slots=True)
class Undertaking(Generic[P]):
    """Plans of one kind have this in common.

    Attributes:
        command: their command's name.
        for_whom: the end of the sentence that asks why.
        longest_reason: characters of a reason that are kept.
        queries: of their tables; `begin`, `state` and `end` are asked for.
        read: reads a plan in the caller's transaction; refuses one that is unknown.
        digest_of: the digest of a plan's set as it stands.
        told: how far a plan is, for the log of actions.
    """

    command: str
    for_whom: str
    longest_reason: int
    queries: Any
    read: Callable[[Connection, UUID], Awaitable[P]]
    digest_of: Callable[[Connection, UUID], Awaitable[str]]
    told: Callable[[P], Mapping[str, object]]

    async def apply(
        self,
        database: Database,
        plan_id: UUID,
        batch: Callable[[str, int], Coroutine[Any, Any, Counter[str]]],
        **how: Unpack[How],
    ) -> P:
        """Do what is left of a plan, and return the plan as it is then. A finished plan is returned as it is.

        Cancelling the call stops it after the batch under way; calling it again goes on from there.

        Args:
            database: where the plan stands.
            plan_id: which plan.
            batch: does the next items, given why and how many at most; returns what became of them.
            how: see there.

        Raises:
            Refused: there is no such plan, it was aborted or changed, or another process applies it.
            DependencyDown: Postgres is away; calling again goes on.
        """
        because = how["because"]
        if not because.strip():
            raise Refused("invalid_request", f"because: say why; {self.for_whom}")
        act = Act(f"{self.command}.apply", f"plan {plan_id}", because, {"rate": how["rate"]})
        async with alone(database, plan_id, act, self._busy(plan_id)):
            async with acting(database, act) as connection:
                plan = await self.read(connection, plan_id)
                act.effects |= self.told(plan)
                if plan.state == "finished":
                    return plan
                reason = await self._begin(connection, plan, storable(because.strip(), self.longest_reason), database)
            if await _work_through(plan, lambda most: batch(reason, most), how):
                async with database.transaction() as connection:
                    await self.queries.end(connection, id=plan.id, state="finished", now=database.clock.now())
        async with database.transaction() as connection:
            return await self.read(connection, plan_id)

    async def refuse_aborted(self, connection: Connection, plan_id: UUID) -> None:
        """Refuse a batch of a plan that was aborted. The plan's state stays as it is until the transaction ends."""
        if await self.queries.state(connection, id=plan_id) == "aborted":
            raise _aborted(plan_id)

    async def _begin(self, connection: Connection, plan: P, reason: str, database: Database) -> str:
        """Note that a plan is being applied, unless it may not be; return why."""
        begun = await self.queries.begin(connection, id=plan.id, reason=reason, now=database.clock.now())
        if begun is None:
            raise _aborted(plan.id)
        if await self.digest_of(connection, plan.id) != plan.digest:
            raise Refused("plan_changed", f"plan {plan.id}: its set is not the one that was shown; make a new plan")
        return str(begun)

    def _busy(self, plan_id: UUID) -> Refused:
        status = f"`teamfit {self.command} status` shows how far"
        return Refused("plan_busy", f"plan {plan_id}: somebody else is applying it now; {status}")


async def _work_through(plan: Frozen, batch: Callable[[int], Coroutine[Any, Any, Counter[str]]], how: How) -> bool:
    """Do what is left, batch by batch; return whether nothing is left."""
    at_most, report, pace = how.get("at_most"), how.get("report"), Pace(how["rate"])
    deadline = monotonic() + at_most.total_seconds() if at_most else inf
    left = plan.left
    while True:
        if report is not None:
            report(Progress(plan.total, left))
        if not left:
            return True
        if monotonic() >= deadline:
            return False
        done = (await uninterrupted(batch(pace.batch))).total()
        left -= done
        await pace.after(done)


def _aborted(plan_id: UUID) -> Refused:
    return Refused("plan_aborted", f"plan {plan_id}: was aborted; make a new one for what is left")
