"""`teamfit api` and `teamfit token`."""

import signal
import sys
from collections.abc import Sequence
from datetime import timedelta

import uvicorn

from infra.auth import issue_token, signing_key
from infra.local.processes import require_free
from infra.settings import settings
from infra.telemetry import configure_logging

# Longer than a POST takes. Whoever waits for a job, or listens to its events, is cut off and asks another process.
_DRAIN_S = 10


def serve(host: str, port: int) -> None:
    """Serve the API until a signal stops it.

    Raises:
        PortTaken: another program listens there.
        NoSigningKey: it is missing or too short.
    """
    from infra.api import create_api  # noqa: PLC0415 - a token is made without loading the API

    configuration = settings()
    configure_logging(configuration.log_format)
    signing_key(configuration)
    require_free(port, "--port")
    # Uvicorn raises the signal again once it has stopped in good order; that is no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    uvicorn.run(
        create_api(configuration),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )


def signed_token(organization: str, *, scopes: Sequence[str], ttl: timedelta) -> str:
    """Return a bearer token that the API accepts for this organization.

    Raises:
        NoSigningKey: it is missing or too short.
    """
    return issue_token(signing_key(settings()), organization_id=organization, scopes=scopes, lifetime=ttl)
