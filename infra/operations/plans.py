"""Operators say what each plan is given of the fleet. An organization's own weight and cap go before its plan's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aiosql

from infra.actions import Act, acting
from infra.errors import TeamfitError
from infra.operations.prices import currency, kind_of
from infra.postgres import Connection, Database

_queries = aiosql.from_path(Path(__file__).with_name("plans.sql"), "asyncpg")


class UnknownPlan(TeamfitError):
    """Nothing is set for this plan."""


class NoChange(TeamfitError):
    """A share is to be set, and what is given changes nothing or contradicts itself."""


@dataclass(frozen=True, slots=True)
class PlanShare:
    """The share of organizations of a plan.

    Attributes:
        plan: its name, as subscriptions have it.
        weight: their share against others'; None: 1.
        max_in_flight: how many runs of each are worked on at once; None: any number.
        requests_per_minute: how many requests each may send; None: any number.
        max_waiting: how many runs of each may wait; None: any number.
        budget: what calls of each may cost in a month, in micro-units of the currency of all prices; None: any sum.
        budget_kind: whether that stops it, or is told.
    """

    plan: str
    weight: float | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    max_waiting: int | None = None
    budget: int | None = None
    budget_kind: str | None = None


@dataclass(frozen=True, slots=True)
class ShareEffects:
    """A change of a plan's share reaches so far.

    Attributes:
        before, after: what is set for the plan, and would be; None: nothing.
        organizations: how many have the plan.
        with_their_own: those of them that were given values of their own, which go before the plan's.
        waiting, in_flight: their runs in line, and those that are worked on.
    """

    before: PlanShare | None
    after: PlanShare | None
    organizations: int
    with_their_own: int
    waiting: int
    in_flight: int


async def shares(database: Database) -> Sequence[PlanShare]:
    """Return what is set for plans. One that is not there has weight 1 and no limits."""
    async with database.transaction() as connection:
        return await _shares(connection)


async def effects_of_share(database: Database, given: PlanShare, *, no_cap: bool = False) -> ShareEffects:
    """Say what would follow from `set_share`; nothing is done. Raises what that raises."""
    async with database.transaction() as connection:
        return await _effects(connection, given, no_cap=no_cap)


async def set_share(database: Database, given: PlanShare, *, no_cap: bool = False) -> PlanShare:
    """Set what is given of a plan's share; None leaves it as it is. It acts on what waits, within a second.

    Args:
        database: where.
        given: of a plan that may have no organization yet; it counts as soon as one has it. 0 runs in flight pause its
            organizations, 0 requests a minute refuse all.
        no_cap: whether any number of runs may be worked on at once; then `max_in_flight` is None.

    Raises:
        NoChange: nothing is given, or a cap and that there is none.
        WrongPrice: a budget is given, and no model has a price.
    """
    act = Act("plan.set", f"plan of subscriptions {given.plan}")
    async with acting(database, act) as connection:
        act.effects = asdict(await _effects(connection, given, no_cap=no_cap))
        row = await _queries.set_share(connection, **asdict(given), no_cap=no_cap)
    return _with_kind(PlanShare(**row))


async def effects_of_forgetting(database: Database, plan: str) -> ShareEffects:
    """Say what would follow from `forget_share`; nothing is done. Raises UnknownPlan."""
    async with database.transaction() as connection:
        return await _effects_of_forgetting(connection, plan)


async def forget_share(database: Database, plan: str) -> None:
    """Forget what was set for a plan: its organizations have weight 1 and no cap. Raises UnknownPlan."""
    act = Act("plan.forget", f"plan of subscriptions {plan}")
    async with acting(database, act) as connection:
        act.effects = asdict(await _effects_of_forgetting(connection, plan))
        await _queries.forget_share(connection, plan=plan)


async def _effects(connection: Connection, given: PlanShare, *, no_cap: bool) -> ShareEffects:
    changes = {name: value for name, value in asdict(given).items() if name != "plan" and value is not None}
    if no_cap and given.max_in_flight is not None:
        raise NoChange(f"plan {given.plan}: give a number of runs at once or that there is no cap, not both")
    if not changes and not no_cap:
        raise NoChange(f"plan {given.plan}: give at least one value that changes something")
    if given.budget is not None:
        await currency(connection)
    before = await _share(connection, given.plan)
    after = replace(before or PlanShare(given.plan), **changes)
    if no_cap:
        after = replace(after, max_in_flight=None)
    return ShareEffects(before, _with_kind(after), **await _queries.of_plan(connection, plan=given.plan))


async def _effects_of_forgetting(connection: Connection, plan: str) -> ShareEffects:
    before = await _share(connection, plan)
    if before is None:
        raise UnknownPlan(f"plan {plan}: nothing is set for it; `teamfit plan list` has all that something is set for")
    return ShareEffects(before, None, **await _queries.of_plan(connection, plan=plan))


async def _shares(connection: Connection) -> Sequence[PlanShare]:
    return [_with_kind(PlanShare(**row)) async for row in _queries.shares(connection)]


def _with_kind(share: PlanShare) -> PlanShare:
    return replace(share, budget_kind=kind_of(share.budget, share.budget_kind))


async def _share(connection: Connection, plan: str) -> PlanShare | None:
    return next((one for one in await _shares(connection) if one.plan == plan), None)
