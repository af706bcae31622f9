"""What Schemathesis asks each route. It takes a second to load, so the tests that ask load it."""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api_server import bearer

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Two kinds of question for each of the routes: about 900 in all, the same each time.
CASES = 8


def ask_at(address: str, document: Mapping[str, Any], known: Mapping[str, str]) -> int:
    """Ask every route of the API at an address as its document allows, and as it does not; return how often."""
    schema = schemathesis.openapi.from_dict({**document, "servers": [{"url": address}]})
    schema.config.update(base_url=address)
    with requests.Session() as session:
        return _ask(schema, known, session)


def _ask(schema: schemathesis.BaseSchema, known: Mapping[str, str], session: requests.Session) -> int:
    asked = 0
    session.headers.clear()
    vars(session).update(trust_env=False)  # to look for proxies takes longer than to send a request
    sending: dict[str, Any] = {
        "headers": bearer("acme", "jobs", "operator"),
        "checks": CHECKS,
        "timeout": 60,
        "session": session,
    }
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        for mode in schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=CASES,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def once(case: schemathesis.Case[Any]) -> None:
                nonlocal asked
                asked += 1
                case.call_and_validate(**sending)
                # Of IDs that are made up no route has anything to tell.
                if any(name in known for name in case.path_parameters):
                    case.path_parameters = {**case.path_parameters, **known}
                    case.call_and_validate(**sending)
                if isinstance(case.body, dict) and "organization_id" in case.body:
                    case.body = {**case.body, "organization_id": "acme", "team_id": "acme-team"}
                    case.call_and_validate(**sending)

            # A route that takes nothing cannot be asked wrongly.
            with suppress(Unsatisfiable) if mode.is_negative else nullcontext():
                once()
    return asked
