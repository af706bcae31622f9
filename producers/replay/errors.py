"""These errors say why a replay is refused.

ReplayError
├── UnknownFailedEvent   no row has this ID
├── UnknownPlan          nor a plan this one
├── PlanBusy             somebody else is applying it
├── PlanChanged          what it would send is no longer what it showed
├── PlanAborted          it was given up
└── QuotaNotReleased     jobs still hold quota for the run that failed; the quota stage is behind or away
"""

from collections.abc import Sequence
from uuid import UUID

from infra.errors import Refused

_SHOWN = 20


class ReplayError(Refused):
    """Root of the tree."""

    code = "replay_refused"

    def __init__(self, message: str) -> None:
        super().__init__(self.code, message)


class UnknownFailedEvent(ReplayError):
    """There is no failed event with this ID."""

    code = "failed_event_not_found"

    def __init__(self, failed_event_id: UUID) -> None:
        super().__init__(f"failed event {failed_event_id}: not found; `teamfit failed list` shows those there are")


class UnknownPlan(ReplayError):
    """There is no plan with this ID."""

    code = "plan_not_found"

    def __init__(self, plan_id: UUID) -> None:
        super().__init__(f"plan {plan_id}: not found; make one with `teamfit replay plan`")


class PlanBusy(ReplayError):
    """Another operator's process is applying the plan."""

    code = "plan_busy"

    def __init__(self, plan_id: UUID) -> None:
        super().__init__(f"plan {plan_id}: somebody else is applying it now; `teamfit replay status` shows how far")


class PlanChanged(ReplayError):
    """The set is no longer the one that the plan showed.

    Attributes:
        changes: a line for each event that changed, at most as many as anybody reads.
        total: how many changed.
    """

    code = "plan_changed"

    def __init__(self, plan_id: UUID, changes: Sequence[str]) -> None:
        self.changes = list(changes[:_SHOWN])
        self.total = len(changes)
        more = f"\n  and {self.total - _SHOWN} more" if self.total > _SHOWN else ""
        lines = "".join(f"\n  {change}" for change in self.changes)
        super().__init__(
            f"plan {plan_id}: {self.total} of its events changed since it was made; make a new plan.{lines}{more}"
        )


class PlanAborted(ReplayError):
    """The plan was given up."""

    code = "plan_aborted"

    def __init__(self, plan_id: UUID) -> None:
        super().__init__(f"plan {plan_id}: was aborted; make a new one for what is left")


class QuotaNotReleased(ReplayError):
    """The plan waits for the quota stage."""

    code = "quota_not_released"

    def __init__(self, plan_id: UUID, waiting: int) -> None:
        super().__init__(
            f"plan {plan_id}: {waiting} jobs still hold quota for the run that failed, and starting them again now "
            "could take a second unit; see that the quota stage runs, then apply the plan again to go on"
        )
