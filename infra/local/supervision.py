"""`teamfit up` starts again whatever ends by itself, as a supervisor does in production.

A part that ends soon after its start, several times in a row, would only end again: then the stack ends with the last
lines of that part's log.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from infra.local.processes import ServerFailed
from infra.local.stack import Stack

# A part that has lived for so long has shown that it can.
_LONG_ENOUGH_S: Final = 30.0
_MOST_IN_A_ROW: Final = 3


class Supervisor:
    """It looks after the parts of a running stack, and says what it does."""

    def __init__(
        self, stack: Stack, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with a stack that has just started."""
        self._stack = stack
        self._say = say
        self._clock = clock
        self._in_a_row: Counter[str] = Counter()
        self._started_at = dict.fromkeys(stack.pids(), clock())

    def look(self) -> None:
        """Start each part again that has ended by itself.

        Raises:
            ServerFailed: one ends again and again; the message holds the end of its log.
        """
        for name, ending in self._stack.ended().items():
            lived_s = self._clock() - self._started_at.get(name, 0.0)
            self._in_a_row[name] = self._in_a_row[name] + 1 if lived_s < _LONG_ENOUGH_S else 1
            if self._in_a_row[name] > _MOST_IN_A_ROW:
                raise ServerFailed(
                    name, f"ended soon after each of {_MOST_IN_A_ROW} starts, lately {ending}", self._stack.log_of(name)
                )
            self._say(f"{name} {ending}; starting it again")
            try:
                self._stack.start_again(name)
            except ServerFailed as error:
                self._say(str(error))
            else:
                self._say(f"{name} runs again")
            self._started_at[name] = self._clock()
