"""Waiting on a condition instead of for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.1
_SHARE = 0.05  # of the time waited so far: asking often what takes long takes the processor from what is waited for


@overload
async def wait_for(condition: Callable[[], Awaitable[T]], *, deadline_s: float = 15.0, what: str) -> T: ...
@overload
async def wait_for(condition: Callable[[], T], *, deadline_s: float = 15.0, what: str) -> T: ...
async def wait_for(condition: Callable[[], T | Awaitable[T]], *, deadline_s: float = 15.0, what: str) -> T:
    """Return the first true value of `condition`, asked again and again.

    Args:
        condition: a plain or an async function; an AssertionError from it counts as "not yet".
        deadline_s: generous on a shared machine; a passing test never waits for it.
        what: completes the sentence "gave up waiting for …".

    Raises:
        AssertionError: the deadline passed; the message holds `what` and the last value or error seen.
    """
    start = time.monotonic()
    end = start + deadline_s
    while True:
        asked = time.monotonic()
        try:
            outcome = condition()
            value: T = await outcome if inspect.isawaitable(outcome) else outcome
            seen = repr(value)
        except AssertionError as error:
            seen = f"AssertionError: {error}"
        else:
            if value:
                return value
        now = time.monotonic()
        if now > end:
            message = f"gave up waiting for {what} after {deadline_s:g} s; last seen: {seen}"
            raise AssertionError(message)
        # As long as the answer took at least, so that half of the time is left to others.
        await asyncio.sleep(min(max(_FIRST_PAUSE_S, _SHARE * (now - start), now - asked), _LONGEST_PAUSE_S))
