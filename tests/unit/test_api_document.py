"""What openapi.json and docs/front-ends.md promise to whoever writes a client, held against the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from consumers.projection.archive import KINDS
from infra.api import create_api, openapi_file
from infra.api.problems import MEDIA_TYPE, PROBLEMS
from streams.jobs.events import JobEvent
from streams.jobs.outcomes import ERROR_CODES
from tests.api_server import api_settings

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("streams", "consumers", "producers", "infra") for path in (ROOT / folder).rglob("*.py")]
# What ends a run, with the code as its first argument; how a problem document begins.
ENDS = {"Permanent", "Transient"}
DOCUMENTS = {"Problem", "Refused", "ProblemResponse", "_unauthenticated", "InvalidToken"}
CODE = re.compile(r"[a-z]+(_[a-z]+)*")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return create_api(api_settings(database_url="postgresql://127.0.0.1:1/none")).openapi()


def test_the_file_in_the_repository_is_current() -> None:
    """Whoever changes a route runs `python -m infra.api.openapi_file`."""
    assert openapi_file.FILE.read_bytes() == openapi_file.document(), "python -m infra.api.openapi_file"


def test_names_of_operations_read_well(document: dict[str, Any]) -> None:
    """A generated client calls `createEventsTicket`; each name stands once, each tag is explained."""
    operations = [one for of_path in document["paths"].values() for one in of_path.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", name)] == []
    assert {tag for one in operations for tag in one["tags"]} == {tag["name"] for tag in document["tags"]}


def schemas_in(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every schema, with the name under which it stands."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name in {"schema", "items"} or (name == "additionalProperties" and isinstance(value, dict)):
                yield name, value
            if name in {"properties", "schemas"}:
                yield from value.items()
            yield from schemas_in(value)
    elif isinstance(part, list):
        for value in part:
            yield from schemas_in(value)


def test_everything_has_a_type(document: dict[str, Any]) -> None:
    """A generated client knows what everything is: `steps` is a list of strings, not unknown."""
    untyped = [
        name
        for name, one in schemas_in(document)
        if not one.keys() & {"type", "$ref", "anyOf", "allOf", "enum", "const"}
    ]
    assert untyped == []
    activity = document["components"]["schemas"]["Activity"]["properties"]
    assert activity["steps"]["anyOf"][0] == {"items": {"type": "string"}, "type": "array"}
    assert activity["group_size"]["anyOf"][0] == {"$ref": "#/components/schemas/GroupSize"}


def calls(names: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Give the calls of these names, wherever they stand in the code."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield str(path.relative_to(ROOT)), node


def calls_end_a_job(place: str, call: ast.Call) -> bool:
    """Return whether the error that is made here becomes the end of a job."""
    refuses = isinstance(call.func, ast.Name) and call.func.id == "Refused"
    return bool(call.args) and (not refuses or place == "streams/jobs/admission.py")


def documented(document: dict[str, Any]) -> dict[str, set[int | str]]:
    """Return the statuses under which each code stands in the OpenAPI document."""
    found: dict[str, set[int | str]] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                schema = response.get("content", {}).get(MEDIA_TYPE, {}).get("schema", {})
                for part in schema.get("allOf", []):
                    for code in part.get("properties", {}).get("code", {}).get("enum", []):
                        found.setdefault(code, set()).add(status)
    return found


def test_every_code_of_a_problem_document_is_in_openapi(document: dict[str, Any]) -> None:
    """Each stands at a route, under its own status or as one that any route may answer; and no other does."""
    found = documented(document)
    assert found.keys() == PROBLEMS.keys()
    for code, statuses in found.items():
        assert statuses <= {"default", str(PROBLEMS[code][0])}


def test_every_code_that_the_code_raises_is_on_the_list() -> None:
    """A problem document is made with a code of the list, and with its status."""
    for place, call in calls(DOCUMENTS):
        constants = [one.value for one in call.args if isinstance(one, ast.Constant)]
        codes = [one for one in constants if isinstance(one, str) and CODE.fullmatch(one)]
        for code in codes[:1]:
            assert code in PROBLEMS, f"{place}:{call.lineno}"
            for status in constants:
                if isinstance(status, int):
                    assert status == PROBLEMS[code][0], f"{place}:{call.lineno}"


def rows_under(heading: str) -> dict[str, str]:
    """Return the table under a heading of docs/front-ends.md: what stands in the first column, and the rest."""
    text = (ROOT / "docs" / "front-ends.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section, re.MULTILINE))


def test_the_page_for_front_ends_has_every_problem() -> None:
    """The table says the same as the list: code, status, meaning."""
    assert rows_under("Problems") == {code: f"{status} | {meaning}" for code, (status, meaning) in PROBLEMS.items()}


def test_the_page_for_front_ends_has_every_code_that_ends_a_job() -> None:
    """Whatever `error_code` a stage gives a job, the page says what it means."""
    raised = {
        call.args[0].value
        for place, call in calls(ENDS | {"Refused"})
        # A refusal ends a job if the rules of admission make it; others are answers to a caller.
        if calls_end_a_job(place, call)
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }
    assert raised - ERROR_CODES.keys() == set()
    assert rows_under("How a job ends") == ERROR_CODES


def test_the_page_for_front_ends_has_every_name_of_a_server_sent_event() -> None:
    """They are the kinds of event that the archive keeps."""
    types = [one.model_fields["type"].default for one in get_args(JobEvent)]
    kinds = {one.removeprefix("teamfit.job.").removesuffix(".v1") for one in types}
    assert rows_under("Server-sent events").keys() == set(KINDS) == kinds - {"accepted"}
