"""The OpenAPI document describes the API, and the page `/docs` shows it.

The document gets the errors and the names that FastAPI leaves out. This process serves everything that the page shows,
so it works without the internet.
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import fastapi_offline
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
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


_STATIC: Final = Path(str(files(fastapi_offline))) / "static"
_ASSETS: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}

# Addresses are relative, so that they are right below a proxy's prefix.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>TEAMFIT activities</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null});
"""
_HEADERS: Final = {
    # Swagger UI writes some of its styles into its elements; its scripts are files.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_docs_page(app: FastAPI) -> None:
    """Add the page and its files."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(_PAGE, headers=_HEADERS)

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript", headers=_HEADERS)
        if name not in _ASSETS:
            raise HTTPException(404)
        headers = {**_HEADERS, "Cache-Control": "public, max-age=3600"}
        return FileResponse(_STATIC / name, media_type=_ASSETS[name], headers=headers)
