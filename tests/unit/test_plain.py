"""A plain question about a job is answered as FastAPI would have it, whatever is sent."""

from collections.abc import MutableMapping
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Response
from hypothesis import given
from hypothesis import strategies as st

from infra.api import failures
from infra.api.caller import Authenticated
from infra.api.plain import PlainRoute
from infra.api.repeated import each_once
from infra.auth import JOBS, OPERATOR, Caller, issue_token
from infra.identity import Tokens
from infra.uuids import GivenUuid

KEY = "a key of more than thirty-two bytes, for tests"
JOB = "0f9b9ad4-6f2c-4b0e-9a51-0d2d8e1c7a11"
GOOD = issue_token(KEY, organization_id="acme")
IDS = [JOB, JOB.upper(), JOB.replace("-", ""), f"{{{JOB}}}", f" {JOB}", str(UUID(int=0)), "f" * 32, "1", "0" * 36, "é"]
TOKENS = [
    *(
        f"Bearer {GOOD}",
        f"bearer {GOOD}",
        f"Bearer  {GOOD}",
        f"Bearer {GOOD} ",
        f"Bearer {GOOD} more",
        "Bearer",
        "Bearer ",
    ),
    *("Basic YTpi", GOOD, "Bearer a.b.c", "Bearer é", f"Bearer {GOOD}é"),
    f"Bearer {issue_token(KEY, organization_id='acme', scopes=[OPERATOR])}",
    f"Bearer {issue_token(KEY, organization_id='acme', lifetime=timedelta(hours=-2))}",
    f"Bearer {issue_token(KEY[::-1], organization_id='acme')}",
]
OTHERS = [
    *(("if-none-match", '"abc"'), ("if-none-match", 'W/"d", "e"'), ("if-none-match", ""), ("if-none-match", "é")),
    *(
        ("prefer", "wait=3"),
        ("prefer", ""),
        ("prefer", " é"),
        ("accept", "*/*"),
        ("cookie", "a=b"),
        ("x-request-id", "7"),
    ),
]


def served(*, plainly: bool) -> FastAPI:
    """An API whose route tells what it was called with, read by hand where that is plain, or by FastAPI alone."""
    authenticated = Authenticated(Tokens((KEY,)), scope=JOBS)
    router = APIRouter()

    @router.get("/jobs/{job_id}")
    async def get_job(
        job_id: GivenUuid,
        caller: Annotated[Caller, Depends(authenticated)],
        if_none_match: Annotated[list[str] | None, Header()] = None,
        prefer: Annotated[str | None, Header()] = None,
    ) -> Response:
        return Response(repr((job_id, caller, if_none_match, prefer)), headers={"X-Read": "1"})

    api = FastAPI(dependencies=[Depends(each_once)])
    failures.install(api)
    if plainly:
        api.router.routes.insert(0, PlainRoute("/jobs", authenticated, get_job))
    api.include_router(router)
    return api


BY_HAND = served(plainly=True)
BY_FASTAPI = served(plainly=False)


async def asked(api: FastAPI, job_id: str, headers: list[tuple[str, str]], query: str) -> tuple[Any, ...]:
    """Ask, and return all of the answer."""
    answer: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        answer.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": f"/jobs/{job_id}",
        "raw_path": b"/",
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    await api(scope, receive, send)
    head, *bodies = answer
    return head["status"], sorted(head["headers"]), b"".join(one["body"] for one in bodies)


@pytest.mark.parametrize("job_id", IDS)
@pytest.mark.parametrize("token", [None, *TOKENS])
async def test_each_id_and_token_is_read_alike(job_id: str, token: str | None) -> None:
    """Good or bad, the answer is the same, to the byte."""
    headers = [] if token is None else [("authorization", token)]
    assert await asked(BY_HAND, job_id, headers, "") == await asked(BY_FASTAPI, job_id, headers, "")


@given(
    job_id=st.sampled_from(IDS),
    tokens=st.lists(st.sampled_from(TOKENS), max_size=2),
    others=st.lists(st.sampled_from(OTHERS), max_size=4),
    query=st.sampled_from(["", "a=1", "a=1&a=2"]),
)
async def test_each_request_is_read_alike(
    job_id: str, tokens: list[str], others: list[tuple[str, str]], query: str
) -> None:
    """Headers may be repeated, missing or odd."""
    headers = [("host", "x"), *(("authorization", token) for token in tokens), *others]
    assert await asked(BY_HAND, job_id, headers, query) == await asked(BY_FASTAPI, job_id, headers, query)
