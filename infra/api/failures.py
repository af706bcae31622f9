"""Answers whatever goes wrong with a problem document: validation, routing, outages, bugs.

No document repeats a value that the caller sent, and no log line an error's text: both may be long or private.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import ceil
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from infra.advice import advice_on
from infra.api.document import describe, known_names, methods
from infra.api.problems import PROBLEMS, RETRY_AFTER_S, FieldProblem, Problem, ProblemResponse
from infra.bugs import Bugs, chain_of, frames_of
from infra.errors import DependencyDown, Refused

log = structlog.get_logger(__name__)

_ROUTING = {
    400: ("bad_request", "body: cannot be read; send a JSON object in UTF-8"),
    404: ("not_found", "there is nothing at this address; /openapi.json lists the routes"),
    405: ("method_not_allowed", "this address does not take that method; the header Allow has those that it takes"),
}
"""What FastAPI and Starlette answer by themselves, with what to do about it."""

# A body may be taken for a text because no header said that it is JSON.
_NO_OBJECT = frozenset({"model_attributes_type", "model_type", "dict_type"})
_OBJECT = "must be a JSON object; send one, with Content-Type: application/json"
# Classes of https://www.postgresql.org/docs/18/errcodes-appendix.html: data, constraints, syntax and access, PL/pgSQL.
_OF_STATEMENTS = ("22", "23", "42", "P0")
_OF_THE_SERVER = (asyncpg.InsufficientPrivilegeError, asyncpg.DuplicatePreparedStatementError)
# A body of 100 kB can be wrong in ten thousand ways, and a field's name be as long.
_MOST_ERRORS = 20
_LONGEST_NAME = 100


def install(app: FastAPI) -> None:
    """Have the app answer every error with a problem document."""
    app.add_exception_handler(HTTPException, _of_http_error)
    app.add_exception_handler(RequestValidationError, _of_invalid_request)
    app.add_exception_handler(Refused, _of_refusal)
    app.add_exception_handler(DependencyDown, _of_outage)
    app.add_exception_handler(asyncpg.PostgresError, _of_odd_answer)
    app.add_middleware(Bugs, answer=_of_bug)
    describe(app)


def _of_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):  # pragma: no cover - Starlette looks handlers up by class
        raise error
    if isinstance(error, Problem):
        return ProblemResponse(
            error.status_code, error.code, error.detail, headers=error.headers, reset_at=error.reset_at
        )
    code, detail = _ROUTING.get(error.status_code, ("bad_request", error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:  # noqa: PLR2004 - the status is its name
        # Starlette names the methods of the first route that has the address, and of no other.
        of_first_route = headers.get("Allow", "").split(", ")
        headers["Allow"] = ", ".join(methods(request, of_first_route=filter(None, of_first_route)))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    return ProblemResponse(error.status_code, code, detail, headers=headers)


def _of_refusal(_request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, Refused):  # pragma: no cover - as above
        raise error
    headers = {} if error.retry_after is None else {"Retry-After": str(ceil(error.retry_after.total_seconds()))}
    return ProblemResponse(PROBLEMS[error.code][0], error.code, str(error), headers=headers, reset_at=error.reset_at)


def _of_invalid_request(request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, RequestValidationError):  # pragma: no cover - as above
        raise error
    complaints = error.errors()
    if any(one["type"] == "json_invalid" for one in complaints):
        return ProblemResponse(400, "invalid_json", "body: is no JSON in UTF-8; send a JSON object in UTF-8")
    errors = [_field_problem(request, one) for one in complaints[:_MOST_ERRORS]]
    detail = "; ".join(f"{one.field}: {one.message}" for one in errors)
    if len(complaints) > _MOST_ERRORS:
        detail += f"; and {len(complaints) - _MOST_ERRORS} more"
    return ProblemResponse(422, "invalid_request", detail, errors=errors)


def _field_problem(request: Request, complaint: Mapping[str, Any]) -> FieldProblem:
    place = complaint["loc"]
    field = _field(place)
    if complaint["type"] == "extra_forbidden":
        return FieldProblem(field=field, message=_advice_on_unknown(str(place[-1]), known_names(request, place[0])))
    return FieldProblem(field=field, message=_OBJECT if complaint["type"] in _NO_OBJECT else advice_on(complaint))


def _field(place: Sequence[str | int]) -> str:
    """Name a field as its caller knows it: without the part of the request it was in, unless that is all there is."""
    name = ".".join(str(part) for part in (place[1:] or place))
    # A JSON name may hold half a character, which no answer can.
    name = name.encode("utf-8", "replace").decode()
    return name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…"


def _advice_on_unknown(name: str, known: Sequence[str]) -> str:
    """Say which field was probably meant: `run_at` for `runAt`."""
    alike = {_letters(one): one for one in known}
    meant = get_close_matches(_letters(name[:_LONGEST_NAME]), alike, n=1)
    if meant:
        return f"is not known; did you mean `{alike[meant[0]]}`?"
    return f"is not known; remove it, or use one of: {', '.join(known)}"


def _letters(name: str) -> str:
    return "".join(one for one in name.casefold() if one.isalnum())


def _of_outage(_request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, DependencyDown):  # pragma: no cover - as above
        raise error
    log.warning("api.dependency_lost", dependency=error.dependency, why=str(error))
    name = "database" if error.dependency == "postgres" else error.dependency
    return ProblemResponse(
        503,
        f"{name}_unavailable",
        f"Connection to {name} failed",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def _of_odd_answer(request: Request, error: Exception) -> ProblemResponse:
    """Answer 503 where Postgres, or a pooler, says something about itself; what it says of a statement is our bug."""
    state = getattr(error, "sqlstate", None) or ""
    if state[:2] in _OF_STATEMENTS and not isinstance(error, _OF_THE_SERVER):
        raise error
    return _of_outage(request, DependencyDown("postgres", f"Postgres answers {type(error).__name__} ({state})"))


def _of_bug(_scope: Scope, error: Exception, error_id: str) -> ProblemResponse:
    log.error("api.failed", error_id=error_id, error=chain_of(error), where=frames_of(error))
    detail = "something went wrong on our side; the error is in the log under error_id"
    return ProblemResponse(500, "internal_error", detail, error_id=error_id)
