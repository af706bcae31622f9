"""This module reads plain questions about a job; FastAPI reads all others.

FastAPI's reading of a path, three headers and a token takes half of what the API does for a status. Both ways call the
same function with the same values, and whatever could be read in two ways, or is wrong, goes the usual one.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials

from infra.api.bearer import Authenticated
from infra.uuids import named

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BEARER: Final = re.compile(rb"Bearer ([\w.-]+)")


def plain_route(authenticated: Authenticated) -> type[APIRoute]:
    """Return a kind of route for `/{job_id}`.

    Its function takes the ID, the caller and `if_none_match`.
    """

    class PlainRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # awaited alone
            usual, answer = super().get_route_handler(), self.endpoint

            async def handle(request: Request) -> Response:
                plain = _plain(request)
                if plain is None:
                    return await usual(request)
                job_id, token, if_none_match = plain
                credentials = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
                caller = await authenticated(request, credentials)
                response: Response = await answer(job_id, caller, if_none_match)
                return response

            return handle

    return PlainRoute


def _plain(request: Request) -> tuple[UUID, str, list[str] | None] | None:
    """Return the job's ID, the token and the tags that are known; None: FastAPI is to read the request."""
    scope: Any = request.scope
    job_id = scope["path_params"].get("job_id", "")
    if scope["query_string"] or not _UUID.fullmatch(job_id):
        return None
    token, known = None, []
    for name, value in scope["headers"]:
        if name == b"authorization":
            found = _BEARER.fullmatch(value)
            if token is not None or found is None:
                return None
            token = found[1].decode("ascii")
        elif name == b"if-none-match":
            known.append(value.decode("latin-1"))
        elif name == b"prefer":
            return None
    try:
        return None if token is None else (named(UUID(job_id)), token, known or None)
    except ValueError:
        return None
