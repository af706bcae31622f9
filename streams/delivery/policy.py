"""The retry policy maps each class of error to an outcome. infra/errors.py draws the classes."""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from infra.errors import DependencyDown, InvalidEvent, Permanent, Postponed, Transient
from infra.postgres_errors import DATA_ERRORS
from infra.settings import Settings
from streams.delivery.deliveries import DeadLetter, Delivery, Hold, RetryLater


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how often a stage tries again.

    Attributes:
        max_attempts: tries in all; more: more patience with a flaky job, and more cost.
        base: delay before the second try, doubled for each further one.
        cap: longest delay of ours; a longer `retry_after` of the other side is still obeyed.
    """

    max_attempts: int
    base: timedelta
    cap: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the policy that the settings ask for."""
        return cls(
            max_attempts=settings.max_attempts,
            base=timedelta(seconds=settings.retry_base_s),
            cap=timedelta(seconds=settings.retry_cap_s),
        )

    def delay(self, attempt: int, retry_after: timedelta | None) -> timedelta:
        """Return the wait after this failed attempt. It grows exponentially, with jitter of half either way."""
        doubled: int = 2 ** min(attempt - 1, 30)
        backoff = min(self.base * doubled, self.cap) * random.uniform(0.5, 1.5)
        return max(backoff, retry_after or timedelta())

    def outcome(
        self, error: Exception, delivery: Delivery, *, suspected: bool = False
    ) -> RetryLater | DeadLetter | Hold:
        """Return what becomes of a delivery whose handler raised this error.

        Args:
            error: what it raised.
            delivery: what it handled.
            suspected: the stage itself may be broken; a bug then gives the job up only when its attempts are spent.
        """
        match error:
            case DependencyDown():
                return Hold(error)
            case InvalidEvent() | Permanent():
                return DeadLetter(error)
            case Postponed():
                return RetryLater(error, error.delay, delivery.attempt)
            case error if is_data_error(error):
                return DeadLetter(error)
            case error if delivery.attempt < self.max_attempts and (
                suspected or isinstance(error, Transient | TimeoutError)
            ):
                retry_after = error.retry_after if isinstance(error, Transient) else None
                return RetryLater(error, self.delay(delivery.attempt, retry_after), delivery.attempt + 1)
            case _:
                return DeadLetter(error)


def is_data_error(error: Exception) -> bool:
    """Return whether the event's content caused the error, by the error's class. Trying again cannot help then."""
    return isinstance(error, DATA_ERRORS)


def error_code(error: Exception) -> str:
    """Return the stable code that a customer sees for this error."""
    match error:
        case Transient() | Permanent():
            return error.code
        case TimeoutError():
            return "timeout"
        case error if is_data_error(error):
            return "invalid_event"
        case _:
            return "internal_error"
