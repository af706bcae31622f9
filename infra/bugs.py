"""An unexpected error is answered with an ID, and the log has it.

The log has its class and place, and not its text: a driver's error quotes the value that it could not use, which may be
a customer's wish.
"""

import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from uuid import uuid4

# As Starlette has them, which workers do not load.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Bugs:
    """Turns an unexpected error of an app into an answer with the error's ID.

    Args:
        app: what answers.
        answer: logs the error, and makes the answer, of a request's scope, the error and its ID.
    """

    def __init__(self, app: App, answer: Callable[[Scope, Exception, str], App]) -> None:
        self._app, self._answer = app, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except Exception as error:
            if scope["type"] != "http":
                raise
            answer = self._answer(scope, error, uuid4().hex)
            if started:
                raise _CutOff from None  # the server closes the connection, so that half an answer is not taken for one
            await answer(scope, receive, send)


class _CutOff(Exception):
    """An answer ends in its middle; the log has said why."""


def chain_of(error: BaseException | None) -> str:
    """Name an error's class and those of its causes."""
    names: list[str] = []
    while error is not None:
        names.append(type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return " from ".join(names)


def frames_of(error: BaseException) -> list[str]:
    """Return the file, line and function of each of its frames."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
