"""The OpenAPI document describes the API. It adds the errors and the names that FastAPI leaves out."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.routing import compile_path

from infra.api.problems import ProblemDocument

_SCHEMAS = "#/components/schemas/"
# FastAPI's own form of a 422, which no route answers.
_NOT_OURS = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Add the problem document to the app's OpenAPI schemas. FastAPI adds only models that are sent as plain JSON."""
    of_routes = app.openapi

    def openapi() -> dict[str, Any]:
        document = of_routes()
        _, schema = models_json_schema([(ProblemDocument, "serialization")], ref_template=_SCHEMAS + "{model}")
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(schema["$defs"])
        for name in _NOT_OURS:
            schemas.pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document


def operation_id(route: APIRoute) -> str:
    """Return the name that a generated client gives the operation: `createEventsTicket`."""
    first, *rest = route.name.split("_")
    return first + "".join(map(str.capitalize, rest))


def methods(request: Request, *, of_first_route: Iterable[str]) -> Sequence[str]:
    """Return the methods that the request's address takes, those of its first route included."""
    found = {"OPTIONS", *of_first_route, *(method.upper() for method in _operations(request))}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def known_names(request: Request, place: object) -> Sequence[str]:
    """Return the names that a route takes in its body, query or headers."""
    operation = _operations(request).get(request.method.lower(), {})
    if place != "body":
        return [one["name"] for one in operation.get("parameters", []) if one["in"] == place]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    # A body that may be left out is a choice between the model and null.
    reference = next(one["$ref"] for one in (schema, *schema.get("anyOf", [])) if "$ref" in one)
    model = request.app.openapi()["components"]["schemas"][reference.removeprefix(_SCHEMAS)]
    return list(model["properties"])


def _operations(request: Request) -> dict[str, Any]:
    """Return the operations of the request's address, by method."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    found: dict[str, Any] = {}
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            found |= operations
    return found
