"""The failure window tells a bad deploy from bad jobs. It holds how recent tries went, over several organizations.

closed ──most recent tries failed, of several organizations──▶ open ──a success──▶ closed

While it is open the stage holds and tries with few deliveries. Each organization counts with its last tries alone and
with each job once, so neither one job's content nor all that one customer sends opens it: it takes two organizations
at least. A flood of unreadable or refused events does not open it either, since those are the events' own fault.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_MOST_ORGANIZATIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Try:
    at: float
    job: object
    failed: bool


@dataclass
class FailureWindow:
    """The outcomes of a stage's recent tries.

    Attributes:
        seconds: how far back it looks at most. Longer: remembers the failures of a quiet stage; shorter: forgets them.
        minimum: failed jobs without which it never opens, so that a few bad jobs on a quiet stage fail as themselves.
            Higher: more of the backlog is spent before a bad deploy is noticed. One organization counts for at most
            half of them.
    """

    seconds: float = 60.0
    minimum: int = 20
    clock: Callable[[], float] = time.monotonic
    is_open: bool = field(default=False, init=False)
    _tries: "OrderedDict[str | None, deque[_Try]]" = field(default_factory=OrderedDict, init=False)

    def succeeded(self, organization: str | None = None, job: object = None) -> None:
        """Note a success. One is enough to close the window; old failures may open it again."""
        self.is_open = False
        self._note(organization, job, failed=False)

    def failed(self, organization: str | None = None, job: object = None) -> bool:
        """Note a failure; return whether the stage should stand still."""
        self._note(organization, job, failed=True)
        since = self.clock() - self.seconds
        tries = [one for recent in self._tries.values() for one in recent if one.at >= since]
        failures = [one for one in tries if one.failed]
        jobs = {one.job for one in failures if one.job is not None}
        unnamed = sum(one.job is None for one in failures)
        if len(jobs) + unnamed >= self.minimum and 2 * len(failures) > len(tries):
            self.is_open = True
        return self.is_open

    def _note(self, organization: str | None, job: object, *, failed: bool) -> None:
        recent = self._tries.setdefault(organization, deque(maxlen=max(1, self.minimum // 2)))
        recent.append(_Try(self.clock(), job, failed))
        self._tries.move_to_end(organization)
        if len(self._tries) > _MOST_ORGANIZATIONS:
            self._tries.popitem(last=False)
