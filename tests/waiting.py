"""Waiting on a condition instead of for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

_POLL_S = 0.02


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
    end = time.monotonic() + deadline_s
    while True:
        try:
            outcome = condition()
            value: T = await outcome if inspect.isawaitable(outcome) else outcome
            seen = repr(value)
        except AssertionError as error:
            seen = f"AssertionError: {error}"
        else:
            if value:
                return value
        if time.monotonic() > end:
            message = f"gave up waiting for {what} after {deadline_s:g} s; last seen: {seen}"
            raise AssertionError(message)
        await asyncio.sleep(_POLL_S)
