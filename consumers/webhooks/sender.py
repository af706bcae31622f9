"""The sender takes deliveries that are due, sends them, and notes how each try ended.

Which delivery is tried when stands in Postgres, and taking one is a lease: any number of processes may send. If one
dies
- before the lease is committed: nothing has happened;
- after it, before or while it sends: the delivery is due again when the lease is over;
- after the receiver has answered, before that is noted: the same, and the receiver gets the same `webhook-id` again;
- after a failed event was kept, before the delivery is noted as given up: it is tried and given up once more, which
  counts one more occurrence of the same failed event.
So each event arrives at least once, or ends as a failed event, or waits for an endpoint that is disabled.

Fairness: an endpoint has few tries under way at once, one if it has failed lately, and endpoints take turns.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

import structlog

from consumers.webhooks import deliveries, endpoints
from consumers.webhooks.deliveries import Due
from consumers.webhooks.messages import TEST, for_endpoint, signed_headers
from consumers.webhooks.receivers import Receivers
from consumers.webhooks.retries import Answer, WebhookNotTaken, next_try
from infra import telemetry
from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Connection, Database
from streams.delivery.brake import Brake
from streams.delivery.dead_letters import dead_letter
from streams.delivery.deliveries import Delivery
from streams.delivery.interfaces import FailedEventStore
from streams.delivery.letters import failed_event_of
from streams.jobs.stages import WEBHOOKS
from streams.jobs.topics import JOB_EVENTS

log = structlog.get_logger(__name__)

MOST_OF_ONE: Final = 8
"""Tries to one endpoint under way at once, from one process."""
DISABLED_AFTER: Final = timedelta(days=5)
"""An endpoint that took nothing for so long is disabled when it fails a delivery for the last time."""
# Longer than any try takes, so that no delivery is tried twice at once.
_LEASE: Final = timedelta(minutes=1)
_LOOK_S: Final = 1.0
_LONGER: Final = 20.0
LONGEST_TRY_S: Final = 17.0
"""After a stop, tries under way are waited for; they take no longer."""


class Sender:
    """Sends what is due.

    Args:
        database: where deliveries stand.
        clock: tells when they are due.
        receivers: sends.
        failed_events: keeps what is given up.
        brake: an operator's; while the stage is paused, nothing is sent.
        concurrency: tries under way at once. Higher: more endpoints that hang at the same time hold up no other.

    Attributes:
        held: why nothing is sent at present, or None.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        receivers: Receivers,
        failed_events: FailedEventStore,
        *,
        brake: Brake,
        concurrency: int,
    ) -> None:
        self._database, self._clock, self._receivers = database, clock, receivers
        self._failed_events, self._brake = failed_events, brake
        self._concurrency = concurrency
        self._tries: dict[asyncio.Task[None], Due] = {}
        self._news = asyncio.Event()
        self._stops = False
        self._loop: asyncio.Task[None] | None = None
        self.held: str | None = None

    def start(self) -> None:
        """Begin to send."""
        self._loop = asyncio.create_task(self._run(), name="webhooks")

    def poke(self) -> None:
        """Look at once: something is due."""
        self._news.set()

    async def close(self) -> None:
        """Take nothing more, and wait for the tries under way."""
        self._stops = True
        self._news.set()
        if self._loop is not None:
            await asyncio.wait([self._loop])
        if self._tries:
            await asyncio.wait(self._tries, timeout=LONGEST_TRY_S)
        await self._receivers.close()

    async def _run(self) -> None:
        while not self._stops:
            self._news.clear()
            began = monotonic()
            try:
                if await self.send_due():
                    continue
                self.held = None
            except DependencyDown as error:
                if self.held is None:
                    log.warning("webhooks.held", dependency=error.dependency, why=str(error))
                self.held = f"webhooks are not sent: {error}"
            except Exception as error:
                # It must not end with one bad row, nor without a word: /readyz says so until it goes on.
                if self.held is None:
                    log.exception("webhooks.failed")
                self.held = f"webhooks are not sent: {type(error).__name__}: {error}"
            # With thousands of endpoints that fail a look takes long: then there are fewer looks.
            took_s = monotonic() - began
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_LOOK_S, _LONGER * took_s)):
                    await self._news.wait()

    async def send_due(self) -> int:
        """Begin to send what is due; return how many tries have begun.

        Raises:
            DependencyDown: Postgres is away.
        """
        free = self._concurrency - len(self._tries)
        if free <= 0 or not self._may_send():
            return 0
        async with self._database.transaction() as connection:
            now = self._clock.now()
            taken = await deliveries.claim(
                connection,
                now=now,
                taken_until=now + _LEASE,
                free=free,
                most=MOST_OF_ONE,
                most_failing=1,
                busy=Counter(due.endpoint_id for due in self._tries.values()),
            )
        for due in taken:
            attempt = asyncio.create_task(self._try(due), name=f"webhook {due.event_id}")
            self._tries[attempt] = due
            attempt.add_done_callback(self._ended)
        return len(taken)

    def _may_send(self) -> bool:
        """Return false while operators have paused the stage, or it is not known yet whether they have."""
        if not self._brake.try_enter():
            return False
        self._brake.leave()
        return True

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        self._tries.pop(attempt)
        self._news.set()

    async def _try(self, due: Due) -> None:
        """Send a delivery once and note how that ended. What cannot be noted is due again when the lease is over."""
        try:
            keys = [key for key in (due.secret, due.secret_before) if key is not None]
            headers = signed_headers(keys, due.event_id, self._clock.now(), due.body)
            answer = await self._receivers.post(due.url, headers, due.body)
            await self.settle(due, answer)
        except DependencyDown as error:
            log.warning("webhook.not_noted", **_context(due), why=str(error))
        except Exception:
            log.exception("webhook.not_noted", **_context(due))

    async def settle(self, due: Due, answer: Answer) -> None:
        """Note how a try ended, and what follows for its endpoint.

        Raises:
            DependencyDown: Postgres is away; nothing is noted.
        """
        now = self._clock.now()
        delay = None if answer.is_good or due.type == TEST else next_try(answer, due.attempts + 1, now)
        # A receiver that is gone, or an operator's test, is no delivery that somebody must bring back.
        given_up = not answer.is_good and not answer.is_gone and delay is None
        if given_up and due.event is not None:
            await self._keep(due, due.event, answer)
        next_at = None if delay is None else now + delay
        if answer.is_gone:
            next_at, given_up = now, due.type == TEST
        async with self._database.transaction() as connection:
            # The endpoint first, as whoever changes or removes it locks them.
            because = await self._note_endpoint(connection, due, answer, now=now, given_up=given_up)
            noted = await deliveries.settle(connection, due, answer, now=now, next_at=next_at, given_up=given_up)
        if noted:
            self._tell(due, answer, delay=delay, given_up=given_up, disabled=because)

    async def _note_endpoint(
        self, connection: Connection, due: Due, answer: Answer, *, now: datetime, given_up: bool
    ) -> str | None:
        """Note what a try says about its endpoint; return why that is disabled now, or None."""
        if answer.is_good:
            await endpoints.note_success(connection, due.endpoint_id)
            return None
        if due.type == TEST:
            return None
        since = await endpoints.note_failure(connection, due.endpoint_id, now=now)
        because = None
        if answer.is_gone:
            because = "it answered 410 Gone"
        elif given_up and now - since >= DISABLED_AFTER:
            because = f"it has taken nothing since {since:%Y-%m-%d %H:%M} UTC, lately: {answer.problem}"
        if because is None or not await endpoints.disable(connection, due.endpoint_id, because, now=now):
            return None
        return because

    async def _keep(self, due: Due, event: bytes, answer: Answer) -> None:
        """Keep a delivery as a failed event, by which it is found and replayed."""
        why = f"{due.url} did not take it in {due.attempts + 1} tries, lately: {answer.problem}"
        key = str(due.job_id or due.organization_id).encode()
        given_up = Delivery(JOB_EVENTS, key, for_endpoint(event, due.endpoint_id))
        letter = dead_letter(given_up, group=WEBHOOKS, error=WebhookNotTaken(why))
        await self._failed_events.keep_one(failed_event_of(letter))

    def _tell(self, due: Due, answer: Answer, *, delay: timedelta | None, given_up: bool, disabled: str | None) -> None:
        outcome = "delivered" if answer.is_good else "given_up" if given_up else "failed"
        telemetry.WEBHOOKS.labels(outcome).inc()
        context = _context(due)
        if answer.is_good:
            log.info("webhook.delivered", **context, status=answer.status)
        elif given_up:
            log.error("webhook.given_up", **context, why=answer.problem)
        else:
            log.info("webhook.failed", **context, why=answer.problem, again_in_s=delay and round(delay.total_seconds()))
        if disabled is not None:
            telemetry.WEBHOOKS_DISABLED.inc()
            log.error("webhook.disabled", endpoint_id=context["endpoint_id"], why=disabled)


def _context(due: Due) -> dict[str, object]:
    return {
        "endpoint_id": str(due.endpoint_id),
        "organization_id": due.organization_id,
        "event_id": due.event_id,
        "attempt": due.attempts + 1,
    }
