"""Errors over HTTP: RFC 9457 problem documents, each with a stable `code` that a program can act on.

A router raises `Problem`; `install` makes the documents of everything else (validation, routing, outages, bugs). No
document repeats what the caller sent: it may be long or private.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from infra.errors import DependencyDown

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5  # an outage rarely ends sooner, and a caller that waits longer waits in vain

_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

_EXAMPLE = "2031-04-03T08:00:00Z"
_MOMENT = f"must be a time such as {_EXAMPLE}"
_WHOLE = "must be a whole number"

# What is wrong and what to do, by Pydantic's type of error; `{…}` come from its context, never from the input.
_ADVICE = {
    "missing": "is missing; add it",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} character(s) that are not spaces",
    "string_too_long": "has more than {max_length} characters; shorten it",
    "string_unicode": "holds text that is not valid Unicode; send UTF-8",
    "uuid_parsing": "must be a UUID such as 7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "model_attributes_type": "must be a JSON object; send one, with Content-Type: application/json",
    "dict_type": "must be a JSON object; send one, with Content-Type: application/json",
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "datetime_type": _MOMENT,
    "datetime_parsing": _MOMENT,
    "datetime_from_date_parsing": _MOMENT,
    "timezone_aware": "must say its time zone, as in " + _EXAMPLE,
    "value_error": "{error}",
}

# What the routing answers with itself: the words of HTTP, which say nothing of what to do.
_ROUTING = {
    404: "there is nothing at this address; /openapi.json lists the routes",
    405: "this address does not take that method; the header Allow has those that it takes",
}


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Which field, e.g. `requirements`, or `body` for the whole.")
    message: str = Field(description="What is wrong with it, and how to mend it.")


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 lays it out."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable and machine-readable, e.g. `quota_exceeded`.")
    errors: list[FieldProblem] | None = Field(default=None, description="Each wrong field of an invalid request.")


class Problem(HTTPException):
    """An error that a route answers with.

    Attributes:
        code: stable and machine-readable.
    """

    def __init__(self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.code = code


class ProblemResponse(JSONResponse):
    """A problem document on its way out."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[FieldProblem] | None = None,
    ) -> None:
        document = ProblemDocument(
            title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, errors=errors
        )
        super().__init__(document.model_dump(exclude_none=True), status, headers)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these problem documents for a route's OpenAPI entry."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Have the app answer every error with a problem document."""
    app.add_exception_handler(HTTPException, _of_http_error)
    app.add_exception_handler(RequestValidationError, _of_invalid_request)
    app.add_exception_handler(DependencyDown, _of_outage)
    app.add_exception_handler(Exception, _of_bug)
    _describe(app)


def _describe(app: FastAPI) -> None:
    """Add the problem document to the app's OpenAPI schemas: FastAPI adds only models that are sent as plain JSON."""
    of_routes = app.openapi

    def openapi() -> dict[str, Any]:
        document = of_routes()
        _, schema = models_json_schema(
            [(ProblemDocument, "serialization")], ref_template="#/components/schemas/{model}"
        )
        document.setdefault("components", {}).setdefault("schemas", {}).update(schema["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document


def _of_http_error(_request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, HTTPException):  # pragma: no cover - Starlette looks handlers up by class
        raise error
    if isinstance(error, Problem):
        return ProblemResponse(error.status_code, error.code, error.detail, headers=error.headers)
    code = _CODES.get(error.status_code, "http_error")
    detail = _ROUTING.get(error.status_code, error.detail)
    return ProblemResponse(error.status_code, code, detail, headers=error.headers)


def _of_invalid_request(_request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, RequestValidationError):  # pragma: no cover - as above
        raise error
    complaints = error.errors()
    if any(one["type"] == "json_invalid" for one in complaints):
        return ProblemResponse(400, "invalid_json", "body: is not JSON; send a JSON object in UTF-8")
    errors = [FieldProblem(field=_field(one["loc"]), message=_advice(one)) for one in complaints]
    detail = "; ".join(f"{one.field}: {one.message}" for one in errors)
    return ProblemResponse(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", detail, errors=errors)


def _field(place: Sequence[str | int]) -> str:
    """Name a field as its caller knows it: without the part of the request it was in, unless that is all there is."""
    return ".".join(str(part) for part in (place[1:] or place))


def _advice(complaint: Mapping[str, Any]) -> str:
    advice = _ADVICE.get(complaint["type"], "is not valid ({type})")
    return advice.format(**{"type": complaint["type"], **complaint.get("ctx", {})})


def _of_outage(_request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, DependencyDown):  # pragma: no cover - as above
        raise error
    log.warning("api.dependency_down", dependency=error.dependency, why=str(error))
    name = "database" if error.dependency == "postgres" else error.dependency
    return ProblemResponse(
        503,
        f"{name}_unavailable",
        f"Connection to {name} failed",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def _of_bug(_request: Request, _error: Exception) -> ProblemResponse:
    # Starlette raises the error again after this answer, and the server logs its traceback.
    return ProblemResponse(500, "internal_error", "something went wrong on our side; the error is in the log")
