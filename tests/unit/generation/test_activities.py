"""What counts as an answer, and what is asked for."""

import copy
import json
from typing import Any

import pytest
from pydantic import ValidationError

from consumers.generation.activities import SCHEMA, Activities
from infra.local.llm.composer import compose


def answer(**changes: object) -> dict[str, Any]:
    """Return a valid answer, with its first activity changed."""
    activities: list[dict[str, Any]] = [copy.deepcopy(dict(one)) for one in compose("a remote hour for 8 people")]
    activities[0].update(changes)
    return {"activities": activities}


def test_three_whole_activities_are_an_answer() -> None:
    """A valid answer comes back as it was, key for key."""
    whole = answer()
    assert json.loads(Activities.model_validate_json(json.dumps(whole)).encode()) == whole["activities"]


def test_what_a_model_adds_unasked_is_dropped() -> None:
    """An extra key is no reason to pay for another answer."""
    read = Activities.model_validate_json(json.dumps({**answer(mood="great"), "note": "enjoy"}))
    assert "mood" not in read.encode()


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_any_other_number_than_three_is_refused(count: int) -> None:
    """Two or four activities are not an answer."""
    activities = [*answer()["activities"], answer()["activities"][0]][:count]
    with pytest.raises(ValidationError):
        Activities.model_validate_json(json.dumps({"activities": activities}))


@pytest.mark.parametrize(
    "changes",
    [
        {"title": ""},
        {"title": "   "},
        {"title": "x" * 301},
        {"description": "with a NUL \x00 inside"},
        {"steps": []},
        {"steps": ["one", "\x00"]},
        {"duration_minutes": 0},
        {"duration_minutes": 2**31},
        {"group_size": {"min": 5, "max": 4}},
        {"group_size": {"min": 0, "max": 4}},
        {"materials": ["x"] * 51},
        {"objective": None},
    ],
)
def test_values_out_of_bounds_are_refused(changes: dict[str, object]) -> None:
    """Nothing reaches the database that it or a reader could not take: empty, huge, contradictory or NUL."""
    with pytest.raises(ValidationError):
        Activities.model_validate_json(json.dumps(answer(**changes)))


def test_half_a_surrogate_pair_is_refused() -> None:
    r"""A lone \ud800 is valid JSON text for some parsers, and no text for Postgres."""
    with pytest.raises(ValidationError):
        Activities.model_validate_json(json.dumps(answer(title="PLACE")).replace("PLACE", "\\ud800"))


def _objects(schema: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if isinstance(schema, dict):
        found += [schema] if schema.get("type") == "object" else []
        for value in schema.values():
            found += _objects(value)
    return found


def test_the_schema_fits_strict_mode() -> None:
    """Every object requires all its properties and allows no other; no keyword that strict mode may refuse is sent."""
    objects = _objects(SCHEMA)
    assert len(objects) == 3
    for one in objects:
        assert one["additionalProperties"] is False
        assert one["required"] == list(one["properties"])
    text = json.dumps(SCHEMA)
    assert not any(f'"{word}":' in text for word in ("minLength", "pattern", "maximum", "default"))


def test_the_schema_bounds_the_number_of_activities_and_no_other_list() -> None:
    """A customer who asks for five gets three from an endpoint that keeps to the schema; the job need not fail."""
    assert SCHEMA["properties"]["activities"]["minItems"] == SCHEMA["properties"]["activities"]["maxItems"] == 3
    assert json.dumps(SCHEMA).count("Items") == 2


def test_the_schema_asks_for_every_field_of_an_activity() -> None:
    """Leaving bounds out of the schema leaves no property out, not even the one that is called like a keyword."""
    assert list(SCHEMA["$defs"]["Activity"]["properties"]) == list(answer()["activities"][0])
