"""Webhooks are signed as the Standard Webhooks specification says, so that its libraries verify them.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

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
