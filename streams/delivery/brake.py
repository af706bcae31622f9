"""A brake lets an operator pause a stage, or have it take less at once.

free ──an operator pauses it──▶ paused: no delivery is tried ──the operator resumes it, or the pause expires──▶ free

Deliveries that come meanwhile wait in the worker under their leases, as those of a held stage do: no attempt is spent,
a worker that stops hands them back, and one that dies leaves them to another, which is paused too. What is being tried
goes on to its end. Runs of one paused organization wait outside the worker, so that they keep no other waiting.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from infra.errors import DependencyDown, Postponed


@dataclass(frozen=True, slots=True)
class Orders:
    """An operator wants this of a stage.

    Attributes:
        paused: why it is paused; None: it is not.
        limit: how many deliveries one worker may try at once; None: as many as its settings say.
        organizations: those whose runs wait, each with the seconds after which that ends, or None.
    """

    paused: str | None = None
    limit: int | None = None
    organizations: Mapping[str, float | None] = field(default_factory=dict)


def put_aside_as(stage: str, organization_id: str) -> str:
    """Return the reason for which a run of a paused organization stands in the schedule."""
    return f"{Postponed.__name__}: {_paused_for(stage, organization_id)}"


def _paused_for(stage: str, organization_id: str) -> str:
    return f"{stage} is paused for {organization_id}"


class Brake:
    """The brake of one stage in one process.

    Args:
        stage: its name.
        starts: the event that brings a run to the stage; others of a paused organization go on.
        aside: how long such a run waits outside the worker before it is looked at again.
        awaits_orders: whether nothing may be tried before the first orders are known: a worker that was restarted while
            its stage is paused stays paused.
    """

    def __init__(
        self,
        stage: str = "",
        *,
        starts: type | None = None,
        aside: timedelta = timedelta(seconds=1),
        awaits_orders: bool = False,
    ) -> None:
        self.running = 0
        self.orders = Orders()
        self._stage, self._starts, self._aside = stage, starts, aside
        self._is_known = not awaits_orders
        self._why_unknown: DependencyDown | None = None
        self._changed = asyncio.Event()

    def obey(self, orders: Orders) -> None:
        """Do as an operator wants from now on."""
        if orders != self.orders or not self._is_known:
            self.orders, self._is_known, self._why_unknown = orders, True, None
            self._wake()

    def orders_unknown(self, why: DependencyDown) -> None:
        """Note that the orders cannot be read. Those that are known stay in force."""
        if not self._is_known:
            self._why_unknown = why
            self._wake()

    def try_enter(self) -> bool:
        """Begin with a delivery if that may be done now."""
        if not self._is_free or (self.orders.limit is not None and self.running >= self.orders.limit):
            return False
        self.running += 1
        return True

    async def enter(self) -> None:
        """Wait until a delivery may be begun with, and begin."""
        while not self.try_enter():
            await self._changed.wait()

    def leave(self) -> None:
        """End what was begun."""
        self.running -= 1
        if self.orders.limit is not None:
            self._wake()

    async def released(self) -> None:
        """Wait while the stage is paused."""
        while not self._is_free:
            await self._changed.wait()

    def check(self, event: object) -> None:
        """Pass if the event may be handled.

        Raises:
            DependencyDown: it is not known whether the stage is paused.
            Postponed: the runs of its organization wait.
        """
        if self._why_unknown is not None:
            raise self._why_unknown
        if self._starts is None or not self.orders.organizations or not isinstance(event, self._starts):
            return
        whose = getattr(getattr(event, "data", None), "organization_id", None)
        if isinstance(whose, str) and whose in self.orders.organizations:
            ends_in_s = self.orders.organizations[whose]
            delay = self._aside if ends_in_s is None else min(self._aside, timedelta(seconds=max(1.0, ends_in_s)))
            raise Postponed(_paused_for(self._stage, whose), delay=delay)

    @property
    def _is_free(self) -> bool:
        return self.orders.paused is None and (self._is_known or self._why_unknown is not None)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
