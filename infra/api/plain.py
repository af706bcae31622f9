"""This module reads plain questions about a job; FastAPI reads all others.

FastAPI's way to a route, and its reading of a path, three headers and a token, takes most of what the API does for a
status. Both ways call the same function with the same values, and whatever could be read in two ways, or is wrong, goes
the usual one.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from uuid import UUID

from fastapi import Request, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from infra.api.caller import Authenticated
from infra.api.repeated import any_repeated
from infra.auth import Caller
from infra.uuids import named

_UUID: Final = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_BEARER: Final = re.compile(rb"Bearer ([\w.-]+)")
_READ: Final = "teamfit.plain"

Answer: TypeAlias = Callable[[UUID, Caller, list[str] | None, str | None], Awaitable[Response]]


class PlainRoute(BaseRoute):
    """It stands before the route of `PREFIX/{job_id}` and answers its plain requests.

    Args:
        prefix: of the addresses.
        authenticated: returns who calls.
        answer: the usual route's function.
    """

    def __init__(self, prefix: str, authenticated: Authenticated, answer: Answer) -> None:
        self.path = f"{prefix}/{{job_id}}"  # spans are named after it
        self._prefix = prefix
        self._authenticated = authenticated
        self._answer = answer

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take a request that is plain."""
        plain = self._plain(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        return (Match.NONE, {}) if plain is None else (Match.FULL, {_READ: plain})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it, or raise what the usual route would."""
        job_id, token, if_none_match, prefer = scope[_READ]
        caller = await self._authenticated.caller_of(Request(scope, receive), token)
        response = await self._answer(job_id, caller, if_none_match, prefer)
        await response(scope, receive, send)

    def _plain(self, scope: Scope) -> tuple[UUID, str, list[str] | None, str | None] | None:
        """Return the job's ID, the token, the tags that are known and what is preferred.

        None: FastAPI is to read the request.
        """
        path, jobs = scope["path"], scope.get("root_path", "") + self._prefix
        job_id = _UUID.fullmatch(path, len(jobs)) if path.startswith(jobs) else None
        if job_id is None or scope["query_string"] or any_repeated(scope["headers"]):
            return None
        token, known, prefer = None, None, None
        for name, value in scope["headers"]:
            if name == b"authorization":
                found = _BEARER.fullmatch(value)
                if found is None:
                    return None
                token = found[1].decode("ascii")
            elif name == b"if-none-match":
                known = [value.decode("latin-1")]
            elif name == b"prefer":
                prefer = value.decode("latin-1")
        try:
            return None if token is None else (named(UUID(job_id[1])), token, known, prefer)
        except ValueError:
            return None
