"""Which job a request is, decided by its caller's idempotency key."""

from uuid import NAMESPACE_URL, uuid4, uuid5

from streams.events import JobId

MAX_IDEMPOTENCY_KEY = 255


def job_id_for(organization_id: str, idempotency_key: str | None) -> JobId:
    """Return the ID of a request's job: with a key a function of both, so that every repeat is the same job.

    That holds even for a repeat of a request whose first try crashed between publishing and recording it.
    """
    if idempotency_key is None:
        return JobId(uuid4())
    return JobId(uuid5(NAMESPACE_URL, f"teamfit:{len(organization_id)}:{organization_id}:{idempotency_key}"))
