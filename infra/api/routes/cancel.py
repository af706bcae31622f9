"""The route that cancels jobs."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated, CallersTrace
from infra.api.limits import HEADERS, Limited
from infra.api.problems import BODY, TOKEN, responses
from infra.auth import JOBS, Caller
from infra.identity import Tokens
from infra.uuids import GivenUuid
from producers.cancellation import Cancellation
from streams.jobs.events import DEFAULT_REASON, JobId, Reason

_PROBLEMS = responses(
    *TOKEN,
    *BODY,
    "job_not_found",
    "job_completed",
    "job_failed",
    "job_rejected",
    "job_not_cancellable",
    "too_many_requests",
    "database_unavailable",
)


class CancelRequest(BaseModel):
    """The reason why a job is withdrawn. All of it may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = Field(
        default=None, description=f"Why, for people who read the job's status. None, or null: {DEFAULT_REASON}."
    )


class CancelAnswer(BaseModel):
    """The job is cancelled. It will not run, or stops at its next safe point, and its quota is given back."""

    success: Literal[True] = True
    job_id: UUID
    status: Literal["cancelled"] = "cancelled"
    run: int = Field(description="Which run was cancelled: 1, and one more for each replay.")


def create_router(cancellation: Cancellation, limited: Limited, tokens: Tokens) -> APIRouter:
    """Return the routes that cancel jobs."""
    router = APIRouter(prefix="/api/jobs", tags=["jobs"])
    authenticated = Authenticated(tokens, scope=JOBS)

    @router.post("/{job_id}/cancel", responses={200: {**HEADERS}, **_PROBLEMS})
    async def cancel_job(
        job_id: GivenUuid,
        caller: Annotated[Caller, Depends(authenticated)],
        trace: CallersTrace,
        response: Response,
        request: Annotated[CancelRequest | None, Body()] = None,
    ) -> CancelAnswer:
        """Cancel a job of the caller's organization; repeating the call changes nothing.

        A job that has ended in another way stays as it is: 409, whose `code` says how it ended (`job_completed`,
        `job_failed`, `job_rejected`).
        """
        response.headers.update(await limited.take(caller.organization_id))
        reason = (request or CancelRequest()).reason or DEFAULT_REASON
        end = await cancellation.cancel(
            JobId(job_id), organization_id=caller.organization_id, reason=reason, trace=trace
        )
        return CancelAnswer(job_id=job_id, run=end.run)

    return router
