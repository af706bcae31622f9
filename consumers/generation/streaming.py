"""The fleet learns once whether an endpoint's answers can be read while they are written.

unknown ──one call at a time asks for a stream──▶ streams ──an answer is none, or states no usage──▶ whole
    └── it is refused, answered whole, or states no usage ──▶ whole, until an operator forgets it

Whoever waits for a job likes to see its first activity early; nothing else depends on it. So whatever is in the way, a
refusal or a count that is missing, ends it for this endpoint and model (`llm_streams`), and the call is made as if
there were no streams. A refusal costs nothing: no job pays for a second call.

A worker with many calls under way asks for whole answers as well while the endpoint usually answers before anything of
an answer would be told: reading a stream costs it more than all else that a call does.
"""

import re
import statistics
import time
from collections import deque
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiosql
import structlog

from consumers.generation.answer import Completion
from consumers.generation.dialect import Dialect
from consumers.generation.hold import Caller
from consumers.generation.llm import Llm
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.pieces import Pieces, Told
from consumers.generation.progress import WORTH_TELLING_S
from infra.errors import DependencyDown
from infra.postgres import Database
from infra.settings import Settings
from streams.jobs.completion import Usage

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("streaming.sql"), "asyncpg")

# What another worker has learned, or an operator has made the fleet forget, is noticed after so long.
_READ_AGAIN_S: Final = 30.0
# While it is unknown, a worker asks so often whether it may try.
_ASK_AGAIN_S: Final = 1.0
_MARGIN: Final = timedelta(seconds=5)
# A gateway may end each stream after its own time.
_MOST_BROKEN: Final = 5
# So many calls show how long an endpoint takes.
_LATEST: Final = 20
# With fewer calls at a time a worker has time to spare.
_MANY: Final = 10
# What an endpoint answers that knows no streams.
_NOT_TAKEN: Final = frozenset({400, 405, 406, 415, 422, 501})
_ABOUT_STREAMS: Final = re.compile(r"\bstream")


class Streaming:
    """Makes the calls of one endpoint and model, as streams where that works.

    Args:
        llm: makes the calls.
        database: keeps what is known.
        settings: whether streams are wanted, and how long a call may take.
    """

    def __init__(self, llm: Llm, database: Database, settings: Settings) -> None:
        caller = Caller.of(settings)
        self._llm = llm
        self._database = database
        self._model = {"endpoint": caller.endpoint, "model": caller.model}
        self._is_wanted = settings.llm_stream
        self._limit_s = settings.generation_timeout_s
        self._known: bool | None = None
        self._read_at = float("-inf")
        self._broken, self._broken_at = 0, float("-inf")
        self._took_s: deque[float] = deque(maxlen=_LATEST)
        self._under_way = 0

    async def complete(self, user: str, dialect: Dialect, *, limit_s: float, told: Told) -> Completion:
        """Make one call; see `Llm.complete`.

        Args:
            user: the user's message.
            dialect: how the endpoint is asked.
            limit_s: longest it may take.
            told: called with the number and the title of each activity that is written.

        Raises:
            LlmFailure: there are no activities.
        """
        began = time.monotonic()
        self._under_way += 1
        try:
            completion = await self._complete(user, dialect, limit_s, told)
        finally:
            self._under_way -= 1
        self._took_s.append(time.monotonic() - began)
        return completion

    async def _complete(self, user: str, dialect: Dialect, limit_s: float, told: Told) -> Completion:
        if not await self._may_stream() or (self._known and self._is_quick_and_busy()):
            return await self._llm.complete(user, dialect, limit_s=limit_s)
        is_trial = self._known is None
        try:
            return await self._stream(user, dialect, limit_s, told)
        finally:
            if is_trial and self._known is None:
                await self._end_trial()

    def _is_quick_and_busy(self) -> bool:
        """Return whether many calls are under way, most of which end before anything of them would be told."""
        if self._under_way < _MANY or len(self._took_s) < _LATEST:
            return False
        return statistics.median(self._took_s) < WORTH_TELLING_S

    async def _stream(self, user: str, dialect: Dialect, limit_s: float, told: Told) -> Completion:
        pieces, began = Pieces(told), time.monotonic()
        try:
            completion = await self._llm.complete(user, dialect, limit_s=limit_s, pieces=pieces)
        except LlmFailure as failure:
            if self._is_refused(failure):
                left_s = max(limit_s - (time.monotonic() - began), min(1.0, limit_s))
                return await self._whole(user, dialect, left_s, failure)
            await self._count_broken(pieces, failure, began)
            await self._learn(pieces, failure.usage, has_answered=failure.verdict is None)
            raise
        self._broken = 0
        await self._learn(pieces, completion.usage, has_answered=True)
        return completion

    async def _may_stream(self) -> bool:
        """Return whether this call asks for a stream. While that is unknown, one call of the fleet finds it out."""
        if not self._is_wanted:
            return False
        now = time.monotonic()
        if now - self._read_at >= (_ASK_AGAIN_S if self._known is None else _READ_AGAIN_S):
            self._read_at = now
            try:
                async with self._database.transaction() as connection:
                    self._known = await _queries.streams(connection, **self._model)
                    if self._known is None:
                        lease = timedelta(seconds=self._limit_s) + _MARGIN
                        return bool(await _queries.begin_trial(connection, **self._model, lease=lease))
            except DependencyDown:
                return False
        return bool(self._known)

    def _is_refused(self, failure: LlmFailure) -> bool:
        """Return whether a call may have been refused, at no cost, for its being a stream."""
        if failure.verdict is None or failure.maybe_billed or failure.usage is not None:
            return False
        if _ABOUT_STREAMS.search(failure.words):
            return (failure.status or 0) >= HTTPStatus.BAD_REQUEST
        if failure.verdict.refused or failure.verdict.blame not in {"unknown", "configuration"}:
            return False
        return self._known is None and failure.status in _NOT_TAKEN

    async def _whole(self, user: str, dialect: Dialect, limit_s: float, refused: LlmFailure) -> Completion:
        """Ask for the answer whole. What is answered so was refused as a stream."""
        try:
            completion = await self._llm.complete(user, dialect, limit_s=limit_s)
        except LlmFailure as failure:
            if failure.verdict is None:
                await self._learned(streams=False, why=f"a stream was refused: {refused.error}")
            raise
        await self._learned(streams=False, why=f"a stream was refused: {refused.error}")
        return completion

    async def _learn(self, pieces: Pieces, usage: Usage | None, *, has_answered: bool) -> None:
        if not (has_answered and pieces.has_come):
            return
        if not pieces.is_stream:
            await self._learned(streams=False, why="it answered whole, though it was asked for a stream")
        elif not pieces.is_cut_off and (usage is None or usage.maybe_billed):
            await self._learned(streams=False, why="its stream states no usage")
        elif not pieces.is_cut_off and self._known is None:
            await self._learned(streams=True, why="it was taken at once")

    async def _count_broken(self, pieces: Pieces, failure: LlmFailure, began: float) -> None:
        """Give streams up that end before their end, one after the other; those of one moment count once."""
        if failure.code == "llm_connection_lost" and pieces.is_stream and began > self._broken_at:
            self._broken, self._broken_at = self._broken + 1, time.monotonic()
            if self._broken == _MOST_BROKEN:
                await self._learned(streams=False, why="its streams broke off, one after the other")

    async def _learned(self, *, streams: bool, why: str) -> None:
        if streams == self._known:
            return
        self._known, self._read_at = streams, time.monotonic()
        log.info("llm.stream_learned", streams=streams, why=why)
        # An answer that is paid for is worth more than this note; without it, another call finds the same.
        with suppress(DependencyDown):
            async with self._database.transaction() as connection:
                await _queries.learned_streams(connection, **self._model, streams=streams, why=why)

    async def _end_trial(self) -> None:
        with suppress(DependencyDown):  # its lease ends by itself
            async with self._database.transaction() as connection:
                await _queries.end_trial(connection, **self._model)
