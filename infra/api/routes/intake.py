"""The route that takes requests in."""

import re
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from infra.api.caller import Authenticated, CallersTrace
from infra.api.limits import HEADERS, Limited
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.auth import JOBS, Caller
from infra.errors import Refused
from infra.identity import Tokens
from producers.intake import Intake
from streams.jobs.events import MAX_IDEMPOTENCY_KEY, Requested
from streams.jobs.watch import Watch

_HEADER = "Idempotency-Key"
# While it is not known when the intake opens, and while it is long until then.
_ASK_AGAIN_S, _LONGEST_WAIT_S = 60.0, 3_600.0
# A string of RFC 9651, as the draft of the header has it, with parameters that mean nothing to us; what does not begin
# with a quotation mark is the key as it is.
_WITHIN = r'(?:[^"\\]|\\["\\])*'
_PARAMETERS = rf'(?:\s*;\s*[A-Za-z*][\w.*-]*(?:=(?:"{_WITHIN}"|[^";,\s]*))?)*'
_QUOTED = re.compile(rf'"({_WITHIN})"{_PARAMETERS}')


def _key(sent: str | None) -> str | None:
    """Return the key that a header names: out of its quotes, and in UTF-8 where its bytes are that."""
    if sent is None:
        return None
    with suppress(UnicodeDecodeError):  # then it was Latin-1, as which headers are read
        sent = sent.encode("latin-1").decode()
    sent = sent.strip()
    quoted = _QUOTED.fullmatch(sent)
    if quoted is None and sent.startswith('"'):
        raise ValueError(
            'begins with a quotation mark and is no string of RFC 9651; close it, write \\" for one within it, or '
            "leave the quotation marks out"
        )
    key = re.sub(r"\\(.)", r"\1", quoted.group(1)) if quoted else sent
    if not key.strip():
        raise ValueError("is empty; send a key, or leave the header out")
    if len(key) > MAX_IDEMPOTENCY_KEY:
        raise ValueError(f"has more than {MAX_IDEMPOTENCY_KEY} characters; shorten it")
    if not key.isprintable():
        raise ValueError("holds a character that cannot be printed; remove it")
    return key


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=_HEADER,
        description="The caller's name for this request: a repeat with the same key returns the same job. At most "
        f"{MAX_IDEMPOTENCY_KEY} characters, bare or as a quoted string; both are the same key.",
    ),
    AfterValidator(_key),
]

_PROBLEMS = responses(
    *TOKEN,
    *BODY,
    "wrong_organization",
    "organization_not_found",
    "team_not_found",
    "subscription_required",
    "trust_too_low",
    "quota_exceeded",
    "budget_exceeded",
    "too_many_requests",
    "job_cancelled",
    "idempotency_key_reused",
    "run_at_too_far",
    "broker_unavailable",
    "database_unavailable",
    "intake_stopped",
    "too_busy",
)


_EXAMPLE: Final[JsonValue] = {
    "organization_id": "acme",
    "team_id": "team-1",
    "requirements": "Two hours outdoors for nine people",
}


class GenerateRequest(Requested):
    """A customer's request for activities. A field that is not known is refused: misspelt, it would be missed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})


class GenerateAnswer(BaseModel):
    """The request is recorded; its job can be polled at `status_url` at once."""

    success: Literal[True] = True
    job_id: UUID
    status: Literal["processing"] = Field(
        default="processing", description="As it always was; the job itself begins as `pending`."
    )
    status_url: str = Field(description="Where to poll the job, on the host that was asked.")


def create_router(intake: Intake, limited: Limited, tokens: Tokens, watch: Watch) -> APIRouter:
    """Return the routes that take requests in."""
    router = APIRouter(prefix="/api/activities", tags=["activities"])
    authenticated = Authenticated(tokens, scope=JOBS)

    @router.post("/generate-custom", status_code=202, responses={202: {**HEADERS}, **_PROBLEMS})
    async def generate_custom(
        http: Request,
        request: GenerateRequest,
        response: Response,
        caller: Annotated[Caller, Depends(authenticated)],
        trace: CallersTrace,
        idempotency_key: IdempotencyKey = None,
    ) -> GenerateAnswer:
        """Ask for three activities for a team of the caller's organization.

        The answer comes when the request is recorded and published. Subscription, trust score and quota are checked at
        once; the quota stage decides again, so a job may still end as failed with one of the same codes.
        """
        if request.organization_id != caller.organization_id:
            raise Problem(
                403, "wrong_organization", "organization_id is not the one that the bearer token was made for"
            )
        await _require_open(watch)
        response.headers.update(await limited.take(caller.organization_id))
        job_id = await intake.accept(request, idempotency_key=idempotency_key, trace=trace)
        status_url = f"{http.scope.get('root_path', '')}/api/jobs/{job_id}"
        response.headers["Location"] = status_url
        return GenerateAnswer(job_id=job_id, status_url=status_url)

    return router


async def _require_open(watch: Watch) -> None:
    """Refuse while operators have stopped the intake. Raises Refused."""
    await watch.first_look()
    stopped = watch.controls.find("intake")
    if stopped is not None:
        wait_s = _ASK_AGAIN_S if stopped.ends_in_s is None else min(max(stopped.ends_in_s, 1.0), _LONGEST_WAIT_S)
        message = f"no requests are taken for a while: {stopped.reason}"
        raise Refused("intake_stopped", message, retry_after=timedelta(seconds=wait_s))
