"""Ending a job whose request cannot be read, so that its sender is told why and does not poll for ever.

Only where the bytes name a job and an organization, and nobody has asked for that job: the letter is then the first
that is heard of it. A malformed event about a job that is known changes nothing, whoever sent it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from pydantic import TypeAdapter, ValidationError

from infra import telemetry
from infra.clock import Clock
from infra.errors import InvalidEvent
from infra.postgres import Database
from streams.delivery.dead_letters import REASON_GIVEN_UP
from streams.delivery.deliveries import Record
from streams.delivery.letters import FailedEvent
from streams.jobs.events import Failed, JobCancelRequested, JobFailed, JobId, OrganizationId, fact_id
from streams.jobs.job_ids import needs_proof
from streams.jobs.outcomes import decide_outcome, terminal_fact
from streams.jobs.ownership import claim_unknown
from streams.jobs.stages import QUOTA
from streams.jobs.topics import JOB_REQUESTS

log = structlog.get_logger(__name__)

_CODE = "invalid_event"
_ORGANIZATION: TypeAdapter[str] = TypeAdapter(OrganizationId)
_CANCELS = JobCancelRequested.model_fields["type"].default


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Fails jobs whose request is no valid event."""

    database: Database
    clock: Clock

    async def end_job(self, letter: FailedEvent) -> Sequence[Record]:
        """Return the JobFailed of the job that a letter asked for in vain, or nothing.

        Claiming the job and deciding its end are one transaction, so a job is ended by the letter that first named it
        or not at all. Repeating the call returns the same fact.

        Raises:
            DependencyDown: Postgres is away.
        """
        fact = self._fact(letter)
        if fact is None:
            return ()
        async with self.database.transaction() as connection:
            if await claim_unknown(connection, fact.job_id, fact.data.organization_id):
                await decide_outcome(connection, fact.job_id, fact.run, "failed", fact=fact)
                telemetry.JOBS.labels("failed").inc()
                log.info("job.unreadable", job_id=str(fact.job_id), organization_id=fact.data.organization_id)
            told = await terminal_fact(connection, fact.job_id, fact.run)
        # What stands may be the end of a job that somebody else asked for.
        return (told,) if told is not None and told.value is not None and _is_ours(told.value, fact) else ()

    def _fact(self, letter: FailedEvent) -> JobFailed | None:
        refused = (letter.topic, letter.stage, letter.reason, letter.error_type)
        if refused != (JOB_REQUESTS, QUOTA, REASON_GIVEN_UP, InvalidEvent.__name__):
            return None
        if letter.job_id is None or letter.run not in {None, 1} or letter.event_type == _CANCELS:
            return None
        job_id = JobId(letter.job_id)
        if needs_proof(job_id):
            return None
        try:
            organization_id = _ORGANIZATION.validate_python(letter.organization_id)
        except ValidationError:
            return None
        return JobFailed(
            id=fact_id(job_id, 1, "failed"),
            subject=job_id,
            time=self.clock.now(),
            data=Failed(organization_id=organization_id, code=_CODE, error_message=letter.error_message),
        )


def _is_ours(told: bytes, fact: JobFailed) -> bool:
    kept = JobFailed.model_validate_json(told) if b'"teamfit.job.failed.v1"' in told else None
    return kept is not None and (kept.data.code, kept.data.organization_id) == (_CODE, fact.data.organization_id)
