"""A line is one LLM endpoint, what is known of it, and its attempts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog

from consumers.generation.allowance import Limits
from consumers.generation.answer import Completion
from consumers.generation.attempts import Attempts
from consumers.generation.dialect import Form
from consumers.generation.endpoint import Endpoint
from consumers.generation.endpoint_file import EndpointSpec
from consumers.generation.fleet import Fleet
from consumers.generation.gate import Gate
from consumers.generation.hold import Caller, Hold, ProbeDue, endpoint_of
from consumers.generation.llm import Llm
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.meter import Meter
from consumers.generation.pace import Pacer, Taken
from consumers.generation.pieces import Told
from consumers.generation.prompt import OUR_TOKENS
from consumers.generation.runs import Attempt, Begun, Failure, Handover, Run, Saved
from consumers.generation.streaming import Streaming
from infra.clock import Clock
from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.batching import Batcher
from streams.jobs.completion import Usage
from streams.jobs.events import JobId

log = structlog.get_logger(__name__)

# A job that finds all endpoints held asks again after so long whether a probe has found one that works.
_REST_S: Final = 3.0
_SHORT_WAIT: Final = timedelta(seconds=1)
_PROBE_UNDER_WAY: Final = timedelta(seconds=1)


class Line:
    """One endpoint.

    Args:
        database: keeps the attempts and what the fleet knows.
        clock: dates the attempts.
        settings: as if this endpoint were the only one.
        spec: what the file says of it; None: it is the one that `OPENAI_*` name.
        gate_name: as the fleet names its gate, if not by its address.
        connections: calls in flight at most.
        alone: whether there is no other; then the jobs that wait for it probe it.
    """

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        settings: Settings,
        connections: int,
        spec: EndpointSpec | None = None,
        gate_name: str | None = None,
        alone: bool = True,
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.name = spec.name if spec else endpoint_of(settings)
        self.gate = Gate(gate_name or endpoint_of(settings))
        self.hold = Hold(Caller.of(settings))
        self._llm = Llm(settings, connections=connections)
        self._alone = alone
        self._endpoint = Endpoint(
            llm=self._llm,
            streaming=Streaming(self._llm, database, settings),
            fleet=Fleet(database, settings),
            hold=self.hold,
            settings=settings,
        )
        stated = Limits(settings.llm_requests_per_minute, settings.llm_tokens_per_minute)
        self._pacer = Pacer(
            database,
            endpoint=self.gate.endpoint,
            model=settings.model,
            limits=lambda: stated.or_else(self._llm.allowance.limits),
            most_tokens=OUR_TOKENS + settings.materials_token_budget + settings.max_completion_tokens,
            patience=timedelta(seconds=settings.stage_timeout_s),
        )
        self._meter = Meter(database, self.gate.endpoint, settings.model)
        self._attempts = Attempts(database, clock, settings, self.gate, self.hold, self.name)
        size, timeout_s = settings.batch_size, settings.stage_timeout_s
        self._begin = Batcher(self._attempts.begin, max_size=size, timeout_s=timeout_s)
        self._save = Batcher(self._attempts.save, max_size=size, timeout_s=timeout_s)
        self._fail = Batcher(self._attempts.fail, max_size=size, timeout_s=timeout_s)
        self._paced = Batcher(self._attempts.note_paced, max_size=size, timeout_s=timeout_s)
        self._discard = Batcher(self._attempts.discard, max_size=size, timeout_s=timeout_s)
        self._probe: asyncio.Task[None] | None = None
        self._rests_until = 0.0

    @property
    def is_away(self) -> bool:
        """Return whether it is closed, held or out of reach, for all we know."""
        return self.gate.is_closed or self.hold.began is not None or self._rests_until > time.monotonic()

    @property
    def asks_again(self) -> bool:
        """Return whether it is time to look if it is still away."""
        try:
            self.check_known()
        except DependencyDown:
            return False
        return self._rests_until <= time.monotonic()

    def rest(self) -> None:
        """Pass it over for a moment.

        It takes no calls, and no hold stands that says so.
        """
        if not self.is_away:
            self._rests_until = time.monotonic() + _REST_S

    @property
    def is_full(self) -> bool:
        """Return whether a call would wait until the limits have room."""
        return self._pacer.wait > _SHORT_WAIT

    @property
    def room(self) -> int | None:
        """Return for how many runs at once its limits have room; None: any number."""
        return self._pacer.room

    @property
    def form(self) -> Form:
        """Return the form in which the next call asks."""
        return self._endpoint.form

    def check_known(self) -> None:
        """Pass if calls are taken, or if Postgres has to be asked whether they are.

        Raises:
            DependencyDown: they are not.
        """
        self.gate.check_known()
        self.hold.check_known()

    def check(self) -> None:
        """Pass if calls are taken, as far as this process knows.

        Raises:
            DependencyDown: they are not.
        """
        self.gate.check()
        self.hold.check()

    @property
    def unreached(self) -> str | None:
        """Return why the last call has never left this worker; None: it has."""
        return self._endpoint.unreached

    def check_settings(self) -> None:
        """Say in the log if no call can be made with the settings."""
        try:
            self._llm.check_settings()
        except LlmFailure as failure:
            log.warning("llm.misconfigured", endpoint=self.name, why=str(failure))

    @asynccontextmanager
    async def turn(self, run: Run) -> AsyncIterator[Taken]:
        """Let a job call when the form is known and the limits have room.

        Raises:
            Postponed: there is no room for long.
            DependencyDown: it takes no calls, or Postgres is away.
        """
        async with self._endpoint.turn(), self._pacer.turn(partial(self._note_paced, run)) as taken:
            yield taken

    async def _note_paced(self, run: Run, waited: timedelta) -> None:
        with suppress(DependencyDown):  # a note for whoever asks why the run waits
            await self._paced.submit((*run, waited))

    async def begin(self, handover: Handover) -> Begun:
        """Begin an attempt at this endpoint, probing it first if that is due.

        Where there are others the job does not wait for the probe, which goes on by itself.

        Raises:
            DependencyDown: it takes no calls, or Postgres is away.
        """
        try:
            return await self._begin.submit(handover)
        except ProbeDue as due:
            await self._reopen(due)
            return await self._begin.submit(handover)

    async def ask(self) -> None:
        """Ask without a job whether it takes calls.

        Raises:
            DependencyDown: it does not, or Postgres is away.
        """
        await self._meter.tell_now()  # no call follows that would
        self.gate.check()
        try:
            await self._endpoint.ask()
        except ProbeDue as due:
            await self._reopen(due)

    async def _reopen(self, due: ProbeDue) -> None:
        if not self._alone:
            self._begin_probe()
            raise DependencyDown("llm", str(due), retry_after=_PROBE_UNDER_WAY) from due
        await self._endpoint.reopen()

    async def complete(self, run: Run, prompt: str, taken: Taken, told: Told) -> Completion:
        """Make one paid call at most; see `Endpoint.complete`."""
        await self._meter.tell()  # not after the call, whose answer is paid for
        taken.called = True
        began = time.monotonic()
        try:
            completion = await self._endpoint.complete(run, prompt, told)
        except LlmFailure as failure:
            taken.called = failure.sent
            taken.used = None if failure.maybe_billed else _tokens(failure.usage)
            is_refused = failure.status == HTTPStatus.TOO_MANY_REQUESTS
            self._meter.count(time.monotonic() - began, failure.usage, failed=True, refused=is_refused)
            raise
        taken.used = None if completion.usage.maybe_billed else _tokens(completion.usage)
        self._meter.count(time.monotonic() - began, completion.usage)
        return completion

    async def save(self, attempt: Attempt, completion: Completion) -> Saved | None:
        """Save an answer; None: the attempt no longer holds its run."""
        return await self._save.submit((attempt, completion))

    async def fail(self, failure: Failure) -> None:
        """Record how an attempt failed."""
        await self._fail.submit(failure)

    async def discard(self, attempt: Attempt) -> None:
        """Forget an attempt that has made no call."""
        await self._discard.submit(attempt)

    async def give_up(self, job_id: JobId, run: int, *, error_code: str) -> None:
        """End the unfinished attempts of a run; see `Attempts.give_up`."""
        await self._attempts.give_up(job_id, run, error_code=error_code)

    def _begin_probe(self) -> None:
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._probe_apart())

    async def _probe_apart(self) -> None:
        try:
            await self._endpoint.reopen()
        except DependencyDown as down:
            log.info("llm.still_held", endpoint=self.name, why=str(down))

    async def close(self) -> None:
        """End a probe and close the connections."""
        if self._probe is not None:
            self._probe.cancel()
            with suppress(asyncio.CancelledError):
                await self._probe
        await self._pacer.close()
        await self._meter.tell_now()
        await self._llm.close()


def _tokens(usage: Usage | None) -> int:
    return ((usage.prompt_tokens or 0) + (usage.completion_tokens or 0)) if usage else 0
