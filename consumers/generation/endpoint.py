"""This module asks the endpoint, and judges by evidence who is to blame for failure.

| who is to blame | what follows |
| --- | --- |
| account, configuration | if a probe is refused too, the fleet is held: no worker calls, one probes |
| endpoint | if a probe fails too, the fleet is held; else this job waits alone, and is to blame from the second time |
| limit | the fleet is held; while it answers others, this job waits alone, and is to blame after many times |
| prompt, unknown | its job fails alone, once another call has shown that the endpoint works; else the fleet is held |

While an endpoint that says account or configuration answers others, this job waits alone, and fails the second time.
The other call is a neighbour's that began later, or a probe of our own: a harmless prompt that costs next to nothing.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from consumers.generation.answer import Completion
from consumers.generation.blame import Verdict
from consumers.generation.dialect import Form, strongest
from consumers.generation.evidence import Evidence
from consumers.generation.fleet import PROBE_TIME, Fleet
from consumers.generation.hold import Hold
from consumers.generation.learning import Learning
from consumers.generation.llm import Llm
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.pieces import Told
from consumers.generation.refusal import clean
from consumers.generation.runs import Run
from consumers.generation.streaming import Streaming
from infra import telemetry
from infra.errors import DependencyDown, Permanent, Postponed, Transient
from infra.settings import Settings
from streams.delivery.policy import RetryPolicy

log = structlog.get_logger(__name__)

# A probe after a call shares that call's time with Postgres and the broker.
_SHORT_PROBE_S: Final = 10.0
_ANOTHER_PROBES: Final = timedelta(seconds=1)
# A request that is larger than a minute's limit is refused for ever, while smaller ones are answered.
_LIMITED_ALONE: Final = 10
_LOCKED_OUT: Final = frozenset({401, 403, 451})


class Endpoint:
    """The endpoint as this worker and its fleet know it.

    Args:
        llm: makes the calls.
        fleet: keeps what is known.
        streaming: makes those of jobs, as streams where that works.
        hold: what this process knows of a hold.
        settings: which forms are allowed, and how long a call may take.

    Attributes:
        unreached: why the last call has never left this worker; None: it has.
    """

    def __init__(self, *, llm: Llm, streaming: Streaming, fleet: Fleet, hold: Hold, settings: Settings) -> None:
        self._llm = llm
        self._fleet = fleet
        self._hold = hold
        self._settings = settings
        self._retries = RetryPolicy.of(settings)
        self._evidence = Evidence()
        self._learning = Learning(
            llm=streaming,
            fleet=fleet,
            evidence=self._evidence,
            is_refused=self._form_is_refused,
            check=hold.check_known,
            settings=settings,
        )
        self._probing = asyncio.Lock()
        self._refuted: tuple[float, LlmFailure] | None = None
        self._was_held = False
        self.unreached: str | None = None

    @property
    def form(self) -> Form:
        """Return the form in which the next call asks."""
        return self._learning.form.form

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Let a job call. The first of a fleet, which finds out how the endpoint is asked, goes ahead of the others."""
        return self._learning.turn()

    async def complete(self, run: Run, user: str, told: Told) -> Completion:
        """Ask for activities, in one paid call at most.

        Args:
            run: whose they are.
            user: the user's message.
            told: called with each activity that is written, where the answer is read as a stream.

        Raises:
            LlmFailure: there are none; its `error` is what the evidence makes of it.
        """
        began = self._evidence.clock()
        try:
            completion = await self._learning.ask(user, began, told)
        except LlmFailure as failure:
            self.unreached = None if failure.sent else str(failure)
            if failure.verdict is None:
                await self._answered(run, began)
            else:
                verdict = await self._judge(run, failure, failure.verdict, began)
                telemetry.LLM_BLAMED.labels(verdict.blame, verdict.code).inc()
            raise
        self.unreached = None
        await self._answered(run, began)
        return completion

    async def ask(self) -> None:
        """Ask without a job whether calls are taken, unless all that is known says so.

        Raises:
            DependencyDown: they are not.
            ProbeDue: the fleet is held, and it is time to ask.
        """
        if self._hold.began is not None:
            self._hold.learn(*await self._fleet.held())
            self._hold.check()
        elif self.unreached is not None:
            self.unreached = await self._unreached()
            if self.unreached is not None:
                raise DependencyDown("llm", self.unreached)

    async def _unreached(self) -> str | None:
        try:
            self._llm.check_settings()
        except LlmFailure as failure:
            return str(failure)
        async with self._probing:
            refuted = await self._probe(self._short())
        return str(refuted) if refuted is not None and not refuted.sent else None

    async def reopen(self) -> None:
        """Probe for the fleet, if it is this worker's turn; return when the endpoint works.

        Raises:
            DependencyDown: it does not, or another worker is asking.
        """
        async with self._probing:
            if self._hold.began is None:
                return
            if not await self._fleet.take_probe():
                raise DependencyDown("llm", self._hold.sentence, retry_after=_ANOTHER_PROBES)
            limit_s = min(PROBE_TIME.total_seconds(), self._settings.generation_timeout_s)
            refuted = await self._probe(limit_s, in_form=self._hold.blame == "configuration")
            if refuted is None:
                await self._fleet.probe_passed()
                self._hold.learn(None)
                self._was_held = True
                return
            verdict = _lock_out(refuted)
            wait = await self._fleet.probe_failed(verdict)
            self._hold.learn(verdict.sentence, wait, verdict.blame)
        self._hold.check()

    async def _answered(self, run: Run, began: float) -> None:
        self._evidence.succeeded(began)
        self._evidence.forget(run)
        if self._was_held:
            # An answer that is paid for is worth more than this note, without which the next hold waits longer.
            with suppress(DependencyDown):
                await self._fleet.calls_succeed()
                self._was_held = False

    async def _judge(self, run: Run, failure: LlmFailure, verdict: Verdict, began: float) -> Verdict:
        """Make of a failure what the evidence says; return who is to blame after all."""
        if failure.closed_for or not failure.sent:
            # The gate waits as long as the endpoint asks. What never left this worker holds this worker alone.
            return verdict
        match verdict.blame:
            case "account" | "configuration":
                # Words alone hold no fleet: an endpoint may quote the prompt in them. Once may be the end of an outage.
                is_suspect = self._evidence.failed(run)
                if await self._works(began, in_form=verdict.blame == "configuration") is not None:
                    return await self._hold_fleet(failure, verdict, began)
                if is_suspect:
                    failure.code = "llm_bad_request"
                    failure.error = Permanent(failure.code, "the LLM's endpoint refuses this wish, and answers others")
                    return replace(verdict, blame="prompt", code=failure.code)
                delay = self._retries.delay(self._evidence.times_failed(run), None)
                failure.error = Postponed(f"{verdict.sentence}; it answers others", delay=delay)
            case "endpoint" | "limit":
                is_suspect = self._evidence.failed(run)
                is_worn_out = self._evidence.times_failed(run) > _LIMITED_ALONE
                if is_suspect and (verdict.blame == "endpoint" or is_worn_out):
                    failure.error = Transient(verdict.code, verdict.sentence)
                elif is_suspect or await self._answers_others(verdict, began):
                    delay = self._retries.delay(self._evidence.times_failed(run), None)
                    failure.error = Postponed(f"{verdict.sentence}; it answers others", delay=delay)
                else:
                    return await self._hold_fleet(failure, verdict, began)
            case "prompt" | "unknown":
                is_one_of_many = self._evidence.refused(run)
                if (is_one_of_many or not verdict.certain) and (refuted := await self._works(began)) is not None:
                    return await self._hold_fleet(failure, _lock_out(refuted), began)
        return verdict

    async def _answers_others(self, verdict: Verdict, began: float) -> bool:
        """Return whether the endpoint has answered somebody since then.

        One that fails is asked a harmless thing before all wait: one organization's wishes may be what it fails at. A
        limit that is reached is not asked again.
        """
        if self._evidence.works_since(began):
            return True
        return verdict.blame == "endpoint" and await self._works(began) is None

    async def _hold_fleet(self, failure: LlmFailure, verdict: Verdict, began: float) -> Verdict:
        failure.verdict, failure.code = verdict, verdict.code
        failure.error = DependencyDown("llm", verdict.sentence, retry_after=verdict.wait)
        if self._hold.began is None or self._hold.began < began:
            # First here: whoever is about to call need not find out again while Postgres is told.
            self._hold.learn(verdict.sentence, verdict.wait, verdict.blame)
            wait = await self._fleet.hold(verdict)
            if wait is not None:
                log.warning("llm.held", blame=verdict.blame, code=verdict.code, why=verdict.sentence)
            self._hold.learn(None)
            self._hold.learn(verdict.sentence, wait, verdict.blame)
        return verdict

    async def _works(self, began: float, *, in_form: bool = False) -> LlmFailure | None:
        """Return None if the endpoint has answered somebody since then, or else how it failed a probe."""
        async with self._probing:
            if self._evidence.works_since(began):
                return None
            if self._refuted is not None and (self._refuted[0] > began or self._hold.began is not None):
                return self._refuted[1]
            return await self._probe(self._short(), in_form=in_form)

    async def _form_is_refused(self) -> bool:
        async with self._probing:
            refuted = await self._probe(self._short(), in_form=True)
        return refuted is not None and refuted.verdict is not None and bool(refuted.verdict.refused)

    def _short(self) -> float:
        return min(_SHORT_PROBE_S, self._settings.stage_timeout_s / 2)

    async def _probe(self, limit_s: float, *, in_form: bool = False) -> LlmFailure | None:
        """Ask the endpoint a harmless thing; return how it failed, or None. In our form, the answer is a whole one."""
        began = self._evidence.clock()
        if in_form:
            dialect = self._learning.form
        else:
            known = self._learning.known or replace(strongest("prompt"), answer_limit="max_tokens")
            dialect = replace(known, form="prompt")
        month = await self._fleet.begin_probe()
        try:
            usage = await self._llm.probe(dialect, limit_s=limit_s)
        except LlmFailure as failure:
            telemetry.LLM_PROBES.labels("failed").inc()
            await self._fleet.end_probe(month, failure.usage, maybe_billed=failure.maybe_billed)
            self._refuted = self._evidence.clock(), failure
            return failure
        self._evidence.succeeded(began)
        telemetry.LLM_PROBES.labels("answered").inc()
        await self._fleet.end_probe(month, usage, maybe_billed=usage is None)
        return None


def _lock_out(refuted: LlmFailure) -> Verdict:
    """Return what it means that the endpoint refuses even a harmless prompt. Its words are ours, never a prompt's."""
    verdict = refuted.verdict
    if verdict is None:
        return Verdict("endpoint", refuted.code, str(refuted))
    said = f"; it says: {clean(refuted.words)}" if refuted.words else ""
    if verdict.blame not in {"prompt", "unknown"}:
        return replace(verdict, sentence=f"{verdict.sentence}{said}")
    if refuted.status in _LOCKED_OUT:
        sentence = f"the LLM endpoint refuses every prompt ({refuted.status}): the account or its key is blocked{said}"
        return Verdict("account", "llm_account_blocked", sentence)
    sentence = (
        f"the LLM endpoint refuses every prompt ({refuted.status}): check OPENAI_BASE_URL, TEAMFIT_MODEL, "
        f"TEAMFIT_COMPLETION_FORMAT and TEAMFIT_MAX_COMPLETION_TOKENS{said}"
    )
    return Verdict("configuration", "llm_misconfigured", sentence)
