"""Keeping what the transport buries, and ending the jobs that it was about."""

from collections.abc import Sequence

from consumers.failures.poison import Poison
from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.batching import Batcher
from streams.delivery.deliveries import Delivery, Hold, Record
from streams.delivery.failed_events import FailedEvents
from streams.delivery.letters import FailedEvent
from streams.delivery.policy import RetryPolicy


class Letters:
    """Takes what comes on `dead-letters`."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._failed_events = FailedEvents(database, clock)
        self._kept: Batcher[FailedEvent, None] = Batcher(
            self._failed_events.keep, max_size=settings.batch_size, timeout_s=settings.stage_timeout_s
        )
        self._poison = Poison(database, clock)

    async def handle(self, letter: FailedEvent, _delivery: Delivery) -> Sequence[Record]:
        """Keep a letter in `failed_events`; return the run's failure if it is poison.

        Raises:
            DependencyDown: Postgres is away.
        """
        try:
            await self._kept.submit(letter)
        except (DependencyDown, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - whatever the batch could not describe is kept alone, its bytes at the least
            await self._failed_events.keep_one(letter)
        return await self._poison.end_run(letter)


class HoldPolicy(RetryPolicy):
    """The policy of the last stop: whatever fails, the stage holds and says why.

    Giving a dead letter up would write it to `dead-letters`, from where it came; losing it is not allowed. Nothing that
    a letter holds should make this stage fail (see `letters`), so a failure is an outage, or a bug in this stage that a
    deploy mends.
    """

    def outcome(self, error: Exception, delivery: Delivery, *, suspected: bool = False) -> Hold:  # noqa: ARG002
        """Return a hold, always."""
        if isinstance(error, DependencyDown):
            return Hold(error)
        down = DependencyDown("bug", f"a letter of {delivery.topic} was not kept: {type(error).__name__}: {error}")
        down.__cause__ = error
        return Hold(down)
