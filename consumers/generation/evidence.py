"""This process's calls show whether the endpoint works, or one job is to blame."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

_MOST_REMEMBERED: Final = 10_000
# So many prompts in a row that are refused for their content may be a filter that refuses all.
_ALIKE: Final = 2


@dataclass
class Evidence:
    """Successes and failures in their order.

    Attributes:
        clock: seconds that only move forward.
    """

    clock: Callable[[], float] = time.monotonic
    _success_began: float = field(default=-1.0, init=False)
    _succeeded: float = field(default=-1.0, init=False)
    _failed: OrderedDict[Hashable, tuple[float, int]] = field(default_factory=OrderedDict, init=False)
    _refused: set[Hashable] = field(default_factory=set, init=False)

    def succeeded(self, began: float) -> None:
        """Note that a call which began then was answered."""
        self._success_began = max(self._success_began, began)
        self._succeeded = self.clock()
        self._refused.clear()

    def works_since(self, began: float) -> bool:
        """Return whether a call that began later has been answered."""
        return self._success_began > began

    def failed(self, run: Hashable) -> bool:
        """Note a run's failure at the endpoint; return whether others passed since an earlier one."""
        at, times = self._failed.pop(run, (float("inf"), 0))
        is_suspect = self._succeeded > at
        self._failed[run] = self.clock(), times + 1
        while len(self._failed) > _MOST_REMEMBERED:
            self._failed.popitem(last=False)
        return is_suspect

    def times_failed(self, run: Hashable) -> int:
        """Return how often the endpoint has failed a run."""
        return self._failed.get(run, (0.0, 0))[1]

    def refused(self, run: Hashable) -> bool:
        """Note that a prompt was refused. Return whether others were too, with no success in between."""
        if len(self._refused) < _MOST_REMEMBERED:
            self._refused.add(run)
        return len(self._refused) > _ALIKE

    def forget(self, run: Hashable) -> None:
        """Forget a run that has ended well."""
        self._failed.pop(run, None)
