"""The fleet learns once the strongest form of request that the endpoint takes. One job at a time finds it out.

unknown ──a job has the turn, and asks for less until it is answered──▶ known ──a known form is refused──▶ learned anew

A refusal costs nothing, so a job that learns pays for one answer as any other. What was learned is kept by endpoint,
model and setting (`llm_dialects`) until an operator forgets it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import structlog

from consumers.generation.answer import Completion
from consumers.generation.dialect import Dialect, strongest, weaker, without
from consumers.generation.evidence import Evidence
from consumers.generation.fleet import Fleet
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.pieces import Told
from consumers.generation.streaming import Streaming
from infra import telemetry
from infra.errors import DependencyDown
from infra.settings import Settings

log = structlog.get_logger(__name__)

# A form is refused before anything is generated. So one after the other joins in with the form that is being tried, and
# few of them are refused. Longer: fewer still; shorter: a first call that is slow delays the others less.
_WAIT_EACH_S: Final = 0.25
_LONGEST_WAIT_S: Final = 10.0
_STEP_S: Final = 0.1
# No worker waits for a turn for longer, whether its worker lives or not.
_LEASE: Final = timedelta(seconds=5)
# What another worker has learned, or an operator has made the fleet forget, is noticed after so long.
_READ_AGAIN_S: Final = 30.0
# What an endpoint answers that does not name what it refuses.
_UNSPECIFIC: Final = frozenset({400, 415, 422, 500, 501})
_AT_ONCE: Final = "it was taken at once"


class Learning:
    """Asks in the form that is known, and finds one while none is.

    Args:
        llm: makes the calls.
        fleet: keeps what is known.
        evidence: its clock tells how much of a call's time is left.
        is_refused: asks a harmless thing in the known form; returns whether that is refused too.
        check: raises when the endpoint is held, so that no call waits for a turn that is of no use.
        settings: which forms are allowed, and how long a call may take.
    """

    def __init__(
        self,
        *,
        llm: Streaming,
        fleet: Fleet,
        evidence: Evidence,
        is_refused: Callable[[], Awaitable[bool]],
        check: Callable[[], None],
        settings: Settings,
    ) -> None:
        self._llm = llm
        self._fleet = fleet
        self._clock = evidence.clock
        self._is_refused = is_refused
        self._check = check
        self._settings = settings
        self._setting = settings.completion_format
        self._turn = asyncio.Lock()
        self._anew = asyncio.Lock()
        self._waiting = 0
        self._read_at = float("-inf")
        self._untold: tuple[Dialect, str] | None = None
        self._trying = strongest(self._setting)
        self.known: Dialect | None = None

    @property
    def form(self) -> Dialect:
        """Return the form of the next call, the one known or the one being tried."""
        return self.known or self._trying

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let a job call.

        It calls at once when the form is known, else after a while that another job has to find out.
        """
        await self._read()
        if self.known is not None or not await self._take_turn():
            yield
            return
        try:
            yield
        finally:
            self._turn.release()
            if self.known is None:
                with suppress(DependencyDown):  # its lease is short
                    await self._fleet.end_learning()

    async def ask(self, user: str, began: float, told: Told) -> Completion:
        """Ask for activities; what is refused is asked for in another form.

        Args:
            user: the user's message.
            began: when the call's time began.
            told: called with each activity that is written, where the answer is read as a stream.

        Raises:
            LlmFailure: there are none. It is the prompt's fault if a form that is known is refused to it alone.
        """
        known = self.known
        dialect = self.form
        try:
            return await self._ask_and_learn(user, dialect, _AT_ONCE, began, told)
        except LlmFailure as failure:
            if not _is_about_form(failure, is_known=known is not None):
                raise
            refused = failure
        async with self._anew:
            if self.known is not None and self.known != dialect:
                return await self._ask_and_learn(user, self.known, _AT_ONCE, began, told)
            if known is not None and not await self._is_refused():
                # The endpoint cannot bring this prompt into the form, or repeats its words.
                raise refused.of_prompt("llm_bad_request", "the endpoint refuses this prompt alone")
            return await self._ask_for_less(user, dialect, refused, began, told)

    async def _read(self) -> None:
        now = self._clock()
        if now - self._read_at >= _READ_AGAIN_S:
            if self._untold is not None:
                await self._fleet.learned(*self._untold)
                self._untold = None
            self.known = await self._fleet.dialect()
            self._read_at = now

    async def _take_turn(self) -> bool:
        """Wait for the turn, and keep `_turn` if it comes in time and no other worker has learned meanwhile."""
        self._waiting += 1
        has_turn = False
        try:
            async with asyncio.timeout(min(self._waiting * _WAIT_EACH_S, _LONGEST_WAIT_S)):
                await self._turn.acquire()
                try:
                    self._check()
                    while self.known is None and not (has_turn := await self._fleet.begin_learning(_LEASE)):
                        await asyncio.sleep(_STEP_S)
                        self.known = await self._fleet.dialect()
                finally:
                    if not has_turn:
                        self._turn.release()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return has_turn

    async def _ask_for_less(
        self, user: str, asked: Dialect, refused: LlmFailure, began: float, told: Told
    ) -> Completion:
        """Ask in one form after the other until one is taken.

        Raises:
            LlmFailure: none is, or something else is in the way.
        """
        first = refused
        is_repeated = False
        while True:
            is_outage = (refused.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR
            if refused.verdict is not None and refused.verdict.refused:
                left = without(asked, refused.verdict.refused, self._setting)
            elif is_outage and not is_repeated:
                # Servers fail now and then; one that did would be asked for less for ever.
                left, is_repeated = asked, True
            else:
                left = weaker(asked, self._setting)
            if left is None:
                raise first
            asked = self._trying = left
            try:
                return await self._ask_and_learn(user, asked, f"more was refused: {first.error}", began, told)
            except LlmFailure as failure:
                if not _is_about_form(failure, is_known=False):
                    raise
                refused = failure

    async def _ask_and_learn(self, user: str, dialect: Dialect, why: str, began: float, told: Told) -> Completion:
        limit_s = self._settings.generation_timeout_s
        left_s = max(limit_s - (self._clock() - began), min(1.0, limit_s))
        try:
            completion = await self._llm.complete(user, dialect, limit_s=left_s, told=told)
        except LlmFailure as failure:
            # Whatever it holds, an answer in this form is one.
            if failure.verdict is None:
                await self._learn(dialect, why)
            raise
        await self._learn(dialect, why)
        return completion

    async def _learn(self, dialect: Dialect, why: str) -> None:
        if dialect == self.known:
            return
        self.known, self._untold = dialect, (dialect, why)
        # An answer that is paid for is worth more than this note, which can be written later.
        with suppress(DependencyDown):
            await self._fleet.learned(dialect, why)
            self._untold, self._read_at = None, self._clock()
        telemetry.LLM_LEARNED.labels(dialect.form, dialect.answer_limit).inc()
        log.info("llm.learned", form=dialect.form, answer_limit=dialect.answer_limit, why=why)


def _is_about_form(failure: LlmFailure, *, is_known: bool) -> bool:
    verdict = failure.verdict
    if verdict is None:
        return False
    # A form that was taken before and is refused without a name is not what this refusal is about.
    is_unspecific = failure.status in _UNSPECIFIC and verdict.blame in {"unknown", "endpoint"}
    return bool(verdict.refused) or (is_unspecific and not is_known)
