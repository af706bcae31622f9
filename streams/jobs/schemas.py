"""This module writes the events' contract for readers without Python: `python -m streams.jobs.schemas`.

From the Pydantic models it makes a JSON Schema for each event type in `docs/schemas/`, and `docs/asyncapi.json`, an
AsyncAPI 3 document that says which of them travel on which topic. `--check` writes nothing and fails if a file is not
current.
Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue

from streams.jobs.stages import CONSUMER_GROUPS
from streams.jobs.topics import TOPICS, type_of

Json: TypeAlias = dict[str, Any]

DOCS: Final = Path(__file__).parents[2] / "docs"


class _Contract(GenerateJsonSchema):
    """Says what parsing does and Pydantic leaves out.

    What has a default is optional, but an event must say its `type`, which tells the events apart. What may be left
    out may also be null.
    """

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:  # noqa: ANN401 - theirs
        made = super().generate(schema, mode)
        made["required"] = sorted({*made.get("required", ()), "type"} - {"time"})
        for one in (made, *made.get("$defs", {}).values()):
            for name, said in one["properties"].items():
                if name not in one.get("required", ()):
                    one["properties"][name] = _or_null(said)
        return {"$schema": self.schema_dialect, **made}


def _or_null(said: Json) -> Json:
    if {"type": "null"} in said.get("anyOf", ()):
        return said
    about = {name: value for name, value in said.items() if name in {"title", "description", "default"}}
    rest = {name: value for name, value in said.items() if name not in about}
    return {**about, "anyOf": [rest, {"type": "null"}]}


def documents() -> Iterator[tuple[Path, bytes]]:
    """Give each file's path, below `docs/`, and what it should hold."""
    for model in _models():
        yield Path("schemas") / f"{type_of(model)}.json", _json(_schema(model))
    yield Path("asyncapi.json"), _json(_asyncapi())


def _models() -> tuple[type[BaseModel], ...]:
    return tuple(dict.fromkeys(model for topic in TOPICS.values() for model in topic.carries))


def _schema(model: type[BaseModel]) -> Json:
    return model.model_json_schema(schema_generator=_Contract)


def _asyncapi() -> Json:
    models = _models()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "TEAMFIT events",
            "version": "1.0.0",
            "description": "CloudEvents 1.0 in structured JSON, in the field `event` of Redis Streams entries.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {
            name: {
                "address": name,
                "description": topic.what,
                "messages": {
                    model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in topic.carries
                },
            }
            for name, topic in TOPICS.items()
        },
        "operations": {
            f"{group}-reads-{topic}": {"action": "receive", "channel": {"$ref": f"#/channels/{topic}"}}
            for topic, groups in CONSUMER_GROUPS.items()
            for group in groups
        },
        "components": {
            "messages": {
                model.__name__: {
                    "name": type_of(model),
                    "summary": model.__doc__,
                    "payload": {
                        "schemaFormat": "application/schema+json;version=draft-2020-12",
                        "schema": {"$ref": f"schemas/{type_of(model)}.json"},
                    },
                }
                for model in models
            }
        },
    }


def _json(document: Json) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def outdated(docs: Path) -> list[Path]:
    """Return files that differ from the models, and schemas of events that are gone."""
    expected = {docs / name: content for name, content in documents()}
    stale = [path for path, content in expected.items() if not path.is_file() or path.read_bytes() != content]
    return stale + [path for path in (docs / "schemas").glob("*.json") if path not in expected]


def write(docs: Path) -> None:
    """Write every document and remove schemas of events that are no more."""
    (docs / "schemas").mkdir(parents=True, exist_ok=True)
    for name, content in documents():
        (docs / name).write_bytes(content)
    for path in outdated(docs):
        path.unlink()


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    if "--check" not in arguments:
        write(DOCS)
        return 0
    stale = outdated(DOCS)
    for path in stale:
        sys.stderr.write(f"{path}: not current; run `python -m streams.jobs.schemas`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
