"""Writing records to topics through a Faust app's producer, whatever the broker."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import FaustError
from redis.exceptions import RedisError

from infra import tracing
from infra.errors import DependencyDown
from streams.delivery.deliveries import DEAD_LETTERS, SEAL, Record
from streams.redis.errors import EntryRefused, TransportError


class BrokerDown(DependencyDown):
    """The broker did not confirm every record.

    Attributes:
        maybe_written: whether some may have been written all the same.
    """

    def __init__(self, message: str, *, maybe_written: bool) -> None:
        super().__init__("broker", message)
        self.maybe_written = maybe_written


@dataclass(frozen=True, slots=True)
class FaustPublisher:
    """Publishes through the app's producer. Implements `streams.delivery.stage.Publisher`."""

    app: faust.App

    async def publish(self, records: Sequence[Record]) -> None:
        """Return when the broker has confirmed all records.

        Raises:
            BrokerDown: it may not have them all. Publishing them again is how to repair that.
        """
        if not tracing.is_on():
            await self._publish(records)
            return
        entries = [(one.topic, None if _is_kept_as_it_is(one) else one.value) for one in records]
        with tracing.sending(entries) as values:
            traced = zip(records, values, strict=True)
            await self._publish(
                [one if value is None or value is one.value else replace(one, value=value) for one, value in traced]
            )

    async def _publish(self, records: Sequence[Record]) -> None:
        try:
            producer = await self.app.maybe_start_producer()
            sent = [
                await producer.send(one.topic, one.key, one.value, None, None, dict(one.headers)) for one in records
            ]
        except (OSError, RedisError, KafkaError, FaustError, TransportError) as error:
            raise _down(error, maybe_written=True) from error
        # All answers, whatever they are: what one record was refused for says nothing of those beside it.
        answers = await asyncio.gather(*sent, return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        if failures:
            maybe_written = len(failures) < len(answers) or any(map(_maybe_written, failures))
            raise _down(failures[0], maybe_written=maybe_written) from failures[0]


def _is_kept_as_it_is(one: Record) -> bool:
    # A seal is of each byte, and a dead letter is known by those that failed.
    return SEAL in one.headers or one.topic == DEAD_LETTERS


def _maybe_written(error: BaseException) -> bool:
    return not isinstance(error, EntryRefused) and getattr(error, "maybe_written", True)


def _down(error: BaseException, *, maybe_written: bool) -> BrokerDown:
    if isinstance(error, EntryRefused):
        message = f"the broker takes no entries now: {error}; look at its memory and its access rules"
    else:
        message = f"the broker is away: {type(error).__name__}: {error}; check BROKER_URL"
    return BrokerDown(message, maybe_written=maybe_written)
