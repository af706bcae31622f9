"""Events as they were once published: streams and the archive hold such bytes, so they are read for ever.

There is a file for each type and version. Files are added, never changed: if one is not read any more, a deployment
cannot read what it has written itself.
"""

import json
from pathlib import Path

import pytest

from streams.delivery.deliveries import Delivery
from streams.jobs.events import parse_event
from streams.jobs.organization_facts import BudgetReached
from streams.jobs.topics import JOB_EVENTS, TOPICS, read_fact, type_of

RECORDED = sorted((Path(__file__).parents[1] / "recorded").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_event_is_read_without_loss(path: Path) -> None:
    """Every attribute and data field is still known, and has the value that it had."""
    recorded = json.loads(path.read_bytes())
    raw = path.read_bytes()
    fact = read_fact(Delivery(JOB_EVENTS, None, raw)) if path.stem == type_of(BudgetReached) else parse_event(raw)
    read = fact.model_dump(mode="json")
    assert {**read, **recorded, "data": read["data"] | recorded["data"]} == read
    assert read["type"] == path.stem


def test_each_type_is_recorded() -> None:
    """A new type, or version of one, is recorded in `tests/recorded/<type>.json`: the bytes of its `encode()`."""
    types = {type_of(model) for topic in TOPICS.values() for model in topic.carries}
    assert types <= {path.stem for path in RECORDED}
