"""The route that takes requests in."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, Field

from infra.auth import JOBS, Caller
from infra.bearer import Authenticated
from infra.problems import Problem, responses
from producers.intake.intake import Intake
from producers.job_ids import MAX_IDEMPOTENCY_KEY
from producers.trace_headers import CallersTrace
from streams.events import Requested

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_IDEMPOTENCY_KEY,
        description="The caller's name for this request: a repeat with the same key returns the same job.",
    ),
]


class JobAccepted(BaseModel):
    """The request is recorded; its job can be polled at `status_url` at once."""

    success: Literal[True] = True
    job_id: UUID
    status: Literal["processing"] = "processing"
    status_url: str = Field(description="Where to poll the job, relative to this API.")


def create_router(intake: Intake, signing_key: str) -> APIRouter:
    """Return the routes that take requests in."""
    router = APIRouter(prefix="/api/activities", tags=["activities"])
    authenticated = Authenticated(signing_key, scope=JOBS)

    @router.post("/generate-custom", status_code=202, responses=responses(400, 401, 402, 403, 404, 413, 422, 429, 503))
    async def generate_custom(
        request: Requested,
        response: Response,
        caller: Annotated[Caller, Depends(authenticated)],
        trace: CallersTrace,
        idempotency_key: IdempotencyKey = None,
    ) -> JobAccepted:
        """Ask for three activities for a team of the caller's organization.

        The answer comes when the request is recorded and published. Subscription, trust score and quota are checked at
        once; the quota stage decides again, so a job may still end as failed with one of the same codes.
        """
        if request.organization_id != caller.organization_id:
            raise Problem(
                403, "wrong_organization", "organization_id is not the one that the bearer token was made for"
            )
        job_id = await intake.accept(request, idempotency_key=idempotency_key, trace=trace)
        status_url = f"/api/jobs/{job_id}"
        response.headers["Location"] = status_url
        return JobAccepted(job_id=job_id, status_url=status_url)

    return router
