"""The caller's idempotency key decides which job a request belongs to.

Whoever guesses the key can compute such an ID, but no other organization can claim it: it is a UUID of version 8, and
the request that claims one carries the key from which it follows for its own organization (see
`streams.jobs.ownership`). So no secret has to be shared with the services that use the client.
"""

import hashlib
from datetime import UTC
from typing import Final
from uuid import UUID, uuid4

from streams.jobs.events import JobId, Requested, composed_key

_MADE_OF_A_KEY: Final = 8  # of the versions of RFC 9562, the one whose content is the application's


def job_id_for(organization_id: str, idempotency_key: str | None) -> JobId:
    """Return the ID of a request's job. With a key it is a function of both, so that every repeat is the same job.

    That holds whichever way the request comes in, however its characters are composed, and even for a repeat of a
    request whose first try crashed between publishing and recording it.
    """
    if idempotency_key is None:
        return JobId(uuid4())
    named = f"teamfit:{len(organization_id)}:{organization_id}:{composed_key(idempotency_key)}"
    number = int.from_bytes(hashlib.sha256(named.encode(errors="surrogatepass")).digest()[:16])
    number = number & ~(0xF << 76) | _MADE_OF_A_KEY << 76
    return JobId(UUID(int=number & ~(0b11 << 62) | 0b10 << 62))


def digest_of(wish: Requested) -> bytes:
    """Return a digest of what a request asks for. It tells a repeat from another wish under the same job ID.

    It is the same in each version of the pipeline, whatever its models become.
    """
    run_at = "" if wish.run_at is None else wish.run_at.astimezone(UTC).isoformat()
    parts = (wish.organization_id, wish.team_id, wish.requirements, run_at)
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).digest()


def needs_proof(job_id: JobId) -> bool:
    """Return whether only the sender who names its idempotency key may claim this ID."""
    return job_id.version == _MADE_OF_A_KEY
