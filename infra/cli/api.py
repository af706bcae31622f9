"""`teamfit api` and `teamfit token`."""

import signal
import sys
from collections.abc import Sequence
from datetime import timedelta

import uvicorn

from infra.auth import issue_token, signing_key
from infra.cli.session import start_logging
from infra.local.processes import require_free
from infra.settings import Settings, settings


def serve(host: str, port: int, *, root_path: str | None = None) -> None:
    """Serve the API until a signal stops it.

    Raises:
        PortTaken: another program listens there.
        NoSigningKey: it is missing or too short.
    """
    from infra.api import create_api, server  # noqa: PLC0415 - a token is made without loading the API

    started = start_logging()
    configuration = started if root_path is None else Settings(root_path=root_path)
    signing_key(configuration)
    require_free(port, "--port", host=host)
    # Uvicorn raises the signal again once it has stopped in good order; that is no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    uvicorn.Server(server.configuration(create_api(configuration), configuration, host=host, port=port)).run()


def signed_token(organization: str, *, scopes: Sequence[str], ttl: timedelta) -> str:
    """Return a bearer token that the API accepts for this organization.

    Raises:
        NoSigningKey: it is missing or too short.
    """
    return issue_token(signing_key(settings()), organization_id=organization, scopes=scopes, lifetime=ttl)
