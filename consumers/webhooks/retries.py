"""The receiver's answer, and how many tries there were, decide what follows.

sent ──2xx──▶ delivered
     ──410──▶ its endpoint is disabled at once, and the delivery waits until somebody enables that
     ──anything else──▶ tried again, ever later, for three days ──▶ given up: a failed event
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from infra.errors import TeamfitError

# The schedule that the specification recommends: ten tries in a little over three days.
# Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#deliverability-and-reliability
DELAYS: Final[Sequence[timedelta]] = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
MOST_ATTEMPTS: Final = len(DELAYS) + 1
# A receiver may ask for more time, and not for so much that it is never asked again.
_LONGEST_WAIT: Final = timedelta(days=1)
_SECONDS: Final = re.compile(r"(\d+)(?:\.\d*)?", re.ASCII)  # some write fractions, which the standard has not
_GONE: Final = 410


class WebhookNotTaken(TeamfitError):
    """A receiver did not take a delivery in all its tries."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver answered, or did not.

    Attributes:
        status: None without an answer.
        problem: what is wrong with it, in words; None: nothing.
        retry_after: what it asks for.
    """

    status: int | None
    problem: str | None = None
    retry_after: str | None = None

    @property
    def is_good(self) -> bool:
        """Return true if the delivery has arrived."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - as HTTP has it

    @property
    def is_gone(self) -> bool:
        """Return true if the receiver wants no webhooks any more."""
        return self.status == _GONE


def next_try(answer: Answer, attempts: int, now: datetime) -> timedelta | None:
    """Return how long a failed delivery waits; None: it is given up."""
    if attempts >= MOST_ATTEMPTS:
        return None
    delay = DELAYS[attempts - 1] * random.uniform(0.9, 1.1)
    return max(delay, min(_asked_for(answer.retry_after, now), _LONGEST_WAIT))


def _asked_for(retry_after: str | None, now: datetime) -> timedelta:
    """Return the time in a `Retry-After`, of seconds or a date; what cannot be read asks for none."""
    text = (retry_after or "").strip()
    if seconds := _SECONDS.fullmatch(text):
        return timedelta(seconds=min(int(seconds[1][:9]), int(_LONGEST_WAIT.total_seconds())))
    try:
        moment = parsedate_to_datetime(text)
        return max(timedelta(), (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now)
    except (ValueError, OverflowError, IndexError):
        return timedelta()
