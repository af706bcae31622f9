"""HTTP errors are RFC 9457 problem documents with a stable `code` for programs.

A router raises `Problem`; `infra.api.failures` makes the documents of everything else (validation, routing, outages,
bugs). `PROBLEMS` is the one list of codes: a route documents those that it may answer, and docs/front-ends.md has all.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5  # an outage rarely ends sooner, and a caller that waits longer waits in vain

PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "bad_request": (400, "The request is not HTTP, or its body not UTF-8 or nested too deeply."),
    "invalid_json": (400, "The body is not JSON."),
    "unauthenticated": (401, "There is no bearer token."),
    "token_invalid": (401, "The token is not one that this API signed, or lacks a claim."),
    "token_expired": (401, "The token has expired; get a new one."),
    "ticket_invalid": (401, "The ticket was used, has expired, or is for another job; get a new one."),
    "subscription_required": (402, "The organization has no active paid subscription."),
    "insufficient_scope": (403, "The token lacks the scope that the route asks for."),
    "wrong_organization": (403, "`organization_id` is not the token's organization."),
    "trust_too_low": (403, "The organization's trust score is too low."),
    "not_found": (404, "No route has this address; a trailing slash is another address."),
    "organization_not_found": (404, "There is no such organization."),
    "team_not_found": (404, "The organization has no such team."),
    "job_not_found": (404, "There is no such job, or it belongs to another organization."),
    "failed_event_not_found": (404, "There is no such failed event."),
    "control_subject_not_found": (
        404,
        "There is no such process, endpoint or organization, or nothing is wanted of it.",
    ),
    "webhook_not_found": (404, "There is no such webhook endpoint."),
    "plan_not_found": (404, "There is no such plan."),
    "task_not_found": (404, "There is no such periodic task."),
    "method_not_allowed": (405, "The address does not take this method; `Allow` has those that it takes."),
    "request_timeout": (408, "The body did not come in time; send the request again."),
    "job_cancelled": (409, "The job of this Idempotency-Key was cancelled before it was asked for."),
    "job_completed": (409, "The job has completed and cannot be cancelled."),
    "job_failed": (409, "The job has failed and cannot be cancelled."),
    "job_rejected": (409, "The job was rejected and cannot be cancelled."),
    "job_not_cancellable": (409, "The job is older than the pipeline, which cannot cancel it."),
    "plan_busy": (409, "Somebody else is applying the plan."),
    "plan_changed": (409, "The plan's set changed since it was made; make a new one."),
    "plan_aborted": (409, "The plan was aborted."),
    "task_running": (409, "The periodic task is running; ask again when it has ended."),
    "quota_not_released": (409, "Jobs still hold quota for the run that failed; apply the plan again later."),
    "body_too_large": (413, "The body is longer than any valid one."),
    "content_encoding": (415, "The body is compressed; send it as it is, without Content-Encoding."),
    "invalid_request": (422, "Fields are wrong; `errors` names each with what is wrong."),
    "idempotency_key_reused": (422, "The Idempotency-Key was used for a request with another body."),
    "run_at_too_far": (422, "`run_at` is more than 366 days ahead."),
    "quota_exceeded": (429, "The month's quota is used up; `reset_at` says when the next one begins."),
    "budget_exceeded": (429, "The month's budget is used up; `reset_at` says when the next one begins."),
    "too_many_requests": (
        429,
        "The organization asks too fast, or has too many jobs waiting; `RateLimit` says where it stands.",
    ),
    "too_many_streams": (429, "The organization has too many event streams open, or opens them too fast."),
    "internal_error": (500, "A bug; `error_id` finds it in the API's log."),
    "broker_unavailable": (503, "The broker is away or takes no writes; nothing was recorded."),
    "database_unavailable": (503, "Postgres is away or takes no writes."),
    "intake_stopped": (503, "Operators have stopped the intake for a while; the detail says why."),
    "identity_unavailable": (503, "The identity provider's keys cannot be fetched, so its tokens cannot be checked."),
    "too_busy": (503, "More requests came at once than can be taken."),
}
"""Each code with its status, and when it is answered."""

TOKEN: Final = ("unauthenticated", "token_invalid", "token_expired", "insufficient_scope", "identity_unavailable")
"""What a route that asks for a token may answer."""
BODY: Final = (
    "bad_request",
    "invalid_json",
    "invalid_request",
    "request_timeout",
    "body_too_large",
    "content_encoding",
)
"""What a route that reads a body may answer."""
_ANY: Final = (
    "bad_request",
    "not_found",
    "method_not_allowed",
    "request_timeout",
    "body_too_large",
    "content_encoding",
    "internal_error",
)


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Which field, e.g. `requirements`, or `body` for the whole.")
    message: str = Field(description="What is wrong with it, and how to mend it.")


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 lays it out."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable and machine-readable, e.g. `quota_exceeded`.")
    errors: list[FieldProblem] | None = Field(default=None, description="Wrong fields of an invalid request.")
    reset_at: datetime | None = Field(default=None, description="When the quota that is used up begins anew.")
    error_id: str | None = Field(default=None, description="By which a bug is found in the API's log.")


class Problem(HTTPException):
    """An error that a route answers with.

    Attributes:
        code: stable and machine-readable; one of `PROBLEMS`.
        reset_at: when the quota that is used up begins anew.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        reset_at: datetime | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.code = code
        self.reset_at = reset_at


class ProblemResponse(JSONResponse):
    """A problem document on its way out."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[FieldProblem] | None = None,
        reset_at: datetime | None = None,
        error_id: str | None = None,
    ) -> None:
        document = ProblemDocument(
            title=_phrase(status),
            status=status,
            detail=detail,
            code=code,
            errors=errors,
            reset_at=reset_at,
            error_id=error_id,
        )
        super().__init__(document.model_dump(mode="json", exclude_none=True), status, headers)


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Describe the problem documents with these codes, by status, for a route's OpenAPI entry.

    Every route may answer some more, which stand under `default`.
    """
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    described = {status: _described(_phrase(int(status)), found) for status, found in by_status.items()}
    return {**described, "default": _described("Any route may answer these.", _ANY)}


def _phrase(status: int) -> str:
    """Return a status's name by RFC 9110. Before 3.13, Python has older names of two."""
    newer = {413: "Content Too Large", 422: "Unprocessable Content"}
    return newer.get(status) or HTTPStatus(status).phrase


def _described(title: str, codes: Iterable[str]) -> dict[str, Any]:
    """Return an OpenAPI response for documents with these codes."""
    found = list(dict.fromkeys(codes))
    lines = [title, "", *(f"- `{code}`: {PROBLEMS[code][1]}" for code in found)]
    one_of_them = {"type": "object", "properties": {"code": {"type": "string", "enum": found}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/ProblemDocument"}, one_of_them]}
    return {"description": "\n".join(lines), "content": {MEDIA_TYPE: {"schema": schema}}}
