"""Facts about organizations among those about jobs: who reads them, who ignores them, and what is refused."""

import json
from datetime import UTC, datetime

import pytest

from infra.errors import InvalidEvent
from streams.delivery.deliveries import Delivery, Record
from streams.jobs.events import JobEvent
from streams.jobs.organization_facts import BudgetReached, Reached, budget_reached
from streams.jobs.topics import about_jobs, read_event, read_fact, record
from tests.facts import completed, requested

AT = datetime(2031, 4, 12, 9, 30, tzinfo=UTC)
REACHED = Reached(
    organization_id="acme", period="2031-04", percent=80, budget=50_000_000, kind="hard", spent=40_100_000
)
FACT = budget_reached(REACHED, at=AT)


def delivery(raw: bytes, topic: str = "job-events", headers: dict[str, bytes] | None = None) -> Delivery:
    """An entry as the broker hands it over."""
    return Delivery(topic, None, raw, headers or {}, written_at=AT)


def test_a_fact_comes_back_as_it_was_written() -> None:
    """Structured and binary, with its own time or the entry's."""
    assert read_fact(delivery(FACT.encode())) == FACT
    assert record("job-events", FACT) == Record("job-events", b"acme", FACT.encode())
    event = json.loads(FACT.encode())
    headers = {f"ce_{name}": value.encode() for name, value in event.items() if name != "data"}
    assert read_fact(delivery(json.dumps(event["data"]).encode(), headers=headers)) == FACT
    del event["time"]
    assert read_fact(delivery(json.dumps({**event, "later": 1}).encode())) == FACT


def test_its_id_follows_from_what_it_says() -> None:
    """The same mark told again is the same event; another month, mark or budget is another."""
    assert budget_reached(REACHED.model_copy(update={"spent": 45_000_000}), at=AT).id == FACT.id
    others = [
        budget_reached(REACHED.model_copy(update=change), at=AT).id
        for change in ({"period": "2031-05"}, {"percent": 100}, {"budget": 1}, {"organization_id": "birch"})
    ]
    assert len({FACT.id, *others}) == 5


async def test_stages_of_jobs_ignore_it() -> None:
    """They handle what is about a job, and nothing else."""
    handled: list[JobEvent] = []

    async def handle(event: JobEvent, _delivery: Delivery) -> list[Record]:
        handled.append(event)
        return []

    about = completed(1)
    for event in (FACT, about):
        entry = delivery(event.encode())
        assert list(await about_jobs(handle)(read_fact(entry), entry)) == []
    assert handled == [about]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": "birch"}, "subject: 'birch'"),
        ({"subject": None}, "subject: "),
        ({"type": "teamfit.budget.reached.v2"}, "type: "),
        ({"type": ["teamfit.budget.reached.v1"]}, "type: "),
        ({"data": {**REACHED.model_dump(), "period": "2031-13"}}, "data.period: "),
        ({"data": {**REACHED.model_dump(), "percent": 101}}, "data.percent: "),
        ({"data": {**REACHED.model_dump(), "budget": -1}}, "data.budget: "),
        ({"data": {**REACHED.model_dump(), "spent": 2**63}}, "data.spent: "),
        ({"data": {**REACHED.model_dump(), "kind": "firm"}}, "data.kind: "),
        ({"data": None}, "data: "),
    ],
)
def test_a_malformed_one_is_refused_by_its_field(change: dict[str, object], message: str) -> None:
    """As every event: the message names what is wrong."""
    event = {**json.loads(FACT.encode()), **change}
    with pytest.raises(InvalidEvent) as refused:
        read_fact(delivery(json.dumps(event).encode()))
    assert message in str(refused.value)


def test_it_belongs_on_one_topic() -> None:
    """Elsewhere it is refused, and where it belongs a job's request still is."""
    for topic in ("job-requests", "job-accepted"):
        with pytest.raises(InvalidEvent, match="type: "):
            read_fact(delivery(FACT.encode(), topic))
    with pytest.raises(InvalidEvent, match="does not belong on job-events"):
        read_fact(delivery(requested(0).encode()))
    with pytest.raises(InvalidEvent, match="type: "):
        read_event(delivery(FACT.encode()))
    assert isinstance(read_fact(delivery(FACT.encode())), BudgetReached)
