"""A webhook's body is made of its fact: type, time, and what it says. Then it is signed.

Its ID is the fact's own, which is the same however often the fact is published, and so the receiver's idempotency key.
It is signed as the Standard Webhooks specification says, so that its libraries verify it.
Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson

from streams.jobs.events import TERMINAL_TYPES, TerminalFact, kind_of
from streams.jobs.organization_facts import BudgetReached

TEST: Final = "webhook.test"
"""The type of what an operator sends to try an endpoint out."""
JOB_TYPES: Final = {f"job.{name.split('.')[2]}": name for name in TERMINAL_TYPES}
"""The types that customers may ask for, each with the type of its fact."""
BUDGET: Final = "budget.reached"
EVENT_TYPES: Final = (*JOB_TYPES, BUDGET)

_ENDPOINT: Final = "webhookendpoint"


@dataclass(frozen=True, slots=True)
class Message:
    """An organization is to be told of an event.

    Attributes:
        endpoint_id: the one endpoint that is told again, of a replay; None: all that want it.
    """

    organization_id: str
    event_id: str
    type: str
    job_id: UUID | None
    event: bytes
    body: str
    endpoint_id: UUID | None = None


def message_of(fact: TerminalFact | BudgetReached, *, endpoint_id: UUID | None = None) -> Message:
    """Return what a fact's organization is told."""
    data = fact.data.model_dump(mode="json", exclude_none=True)
    kind, job_id = BUDGET, None
    if not isinstance(fact, BudgetReached):
        kind, job_id = f"job.{kind_of(fact)}", fact.job_id
        data = {"job_id": str(job_id), "run": fact.run, **data}
    return Message(
        organization_id=fact.data.organization_id,
        event_id=fact.id,
        type=kind,
        job_id=job_id,
        event=fact.encode(),
        body=body_of(kind, fact.time, data),
        endpoint_id=endpoint_id,
    )


def body_of(kind: str, at: datetime, data: dict[str, object]) -> str:
    """Return a body as the specification has it."""
    return orjson.dumps({"type": kind, "timestamp": at.isoformat(), "data": data}).decode()


def for_endpoint(event: bytes, endpoint_id: UUID) -> bytes:
    """Return an event with the one endpoint that it is for.

    So what an endpoint did not take is a failed event of its own. It is an extension attribute, which other readers of
    the event ignore.
    """
    return orjson.dumps({**orjson.loads(event), _ENDPOINT: str(endpoint_id)})


def endpoint_of(event: bytes | None) -> UUID | None:
    """Return the one endpoint that an event is for, or None."""
    try:
        found = orjson.loads(event or b"null")
        return UUID(found[_ENDPOINT])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = 32  # the specification asks for 24 to 64


def make_secret() -> str:
    """Return a new signing secret in the form that the libraries take."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def signed_headers(keys: Iterable[str], event_id: str, at: datetime, body: str) -> Mapping[str, str]:
    """Return the three headers of a try. The signature has a part for each secret; one that fits is enough.

    Args:
        keys: the secrets that are valid now, the newest first.
        event_id: the receiver's idempotency key; the same at each try.
        at: when the try is made; receivers refuse what is minutes old, so that none can send it again.
        body: exactly what is sent.
    """
    timestamp = str(int(at.timestamp()))
    content = f"{event_id}.{timestamp}.{body}".encode()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{_signature(key, content)}" for key in keys),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
