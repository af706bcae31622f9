"""Any event that the published JSON Schema allows, and hostile ones, come to an end that their sender can see."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from infra.local.organizations import BIRCH
from streams.jobs.schemas import DOCS
from tests.acceptance.customer import Customer
from tests.conftest import Pool
from tests.hostile import HOSTILE_NUMBERS, HOSTILE_TEXTS, HOSTILE_TIMES
from tests.waiting import wait_for

_COUNT = 150
_PLACES = ["id", "source", "time", "run", "datacontenttype", "traceparent", "data", "idempotencykey", "extension"]
_INNER = ["organization_id", "team_id", "requirements", "run_at", "extension"]


def allowed(schema: Any, defs: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for what a JSON Schema allows, of the kinds that ours use."""
    match schema:
        case {"$ref": ref}:
            return allowed(defs[ref.rpartition("/")[2]], defs)
        case {"anyOf": schemas}:
            return st.one_of([allowed(one, defs) for one in schemas])
        case {"const": value}:
            return st.just(value)
        case {"type": "null"}:
            return st.none()
        case {"type": "integer", "minimum": least, "maximum": most}:
            return st.integers(least, most) | st.just(most)
        case {"format": "uuid"}:
            return st.uuids().map(str)
        case {"format": "date-time"}:
            zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
            times = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=zones)  # noqa: DTZ001
            return times.map(datetime.isoformat)
        case {"type": "string", "pattern": pattern} if "[jJ]" in pattern:
            return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= schema["maxLength"])
        case {"type": "string"}:
            characters = st.characters(codec="utf-8", exclude_characters="\0")
            longest = schema.get("maxLength", 100)
            texts = st.text(characters, min_size=schema.get("minLength", 0), max_size=min(longest, 40))
            # What is only spaces is too short once it is trimmed, which a schema cannot say.
            return texts.filter(str.strip) | st.just("\N{PILE OF POO}" * longest)
        case {"type": "object", "properties": properties}:
            required = {name: allowed(properties[name], defs) for name in schema["required"]}
            others = {name: allowed(one, defs) for name, one in properties.items() if name not in required}
            return st.fixed_dictionaries(required, optional=others)
    raise AssertionError(schema)


def published(kind: str) -> st.SearchStrategy[Any]:
    """Return a strategy for the events of a published schema."""
    schema = json.loads((DOCS / "schemas" / f"teamfit.job.{kind}.v1.json").read_text())
    return allowed(schema, schema["$defs"])


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Return examples that Hypothesis makes, the same each time."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def real(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event as one of a real team's, about a job of its own, so that it is more than refused."""
    data = {**event["data"], "organization_id": BIRCH.id}
    if "team_id" in data:
        data["team_id"] = BIRCH.team.id
    return {**event, "subject": str(uuid4()), "data": data}


def hostile() -> list[dict[str, Any]]:
    """Return events with each hostile value."""
    values = [*HOSTILE_TEXTS, *HOSTILE_NUMBERS, *HOSTILE_TIMES]
    events = []
    for turn, value in enumerate(values):
        event = real(
            {
                "specversion": "1.0",
                "type": "teamfit.job.requested.v1",
                "id": str(uuid4()),
                "source": "hostile",
                "time": datetime.now(UTC).isoformat(),
                "data": {"team_id": "", "requirements": "An hour outdoors"},
            }
        )
        # Each value in one place; tests/unit/test_events.py reads each in every place.
        if turn % 2:
            event[_PLACES[turn // 2 % len(_PLACES)]] = value
        else:
            event["data"][_INNER[turn // 2 % len(_INNER)]] = value
        events.append(event)
    return events


@pytest.mark.usefixtures("forgery")
async def test_every_event_comes_to_an_end(customer: Customer, books: Pool) -> None:
    """It is completed, failed with a code, withdrawn, or a failed event with a reason; and the next job completes."""
    made = drawn(published("requested"), _COUNT) + drawn(published("cancel-requested"), _COUNT // 5)
    events = [*map(real, made), *hostile()]
    for event in events:
        raw = json.dumps(event, allow_nan=True)
        await customer.xadd("key", event["subject"], "event", raw)
    subjects = [UUID(event["subject"]) for event in events]

    async def all_ended() -> bool:
        rows = await books.fetch(
            """
            SELECT asked.job_id, job.status,
                EXISTS (SELECT FROM failed_events AS kept WHERE kept.job_id = asked.job_id) AS kept,
                EXISTS (SELECT FROM early_cancellations AS early WHERE early.job_id = asked.job_id) AS early,
                EXISTS (
                    SELECT FROM scheduled_events AS later
                    WHERE later.key = convert_to(asked.job_id::text, 'UTF8')
                        AND later.due_at > now() + interval '1 hour'
                ) AS later
            FROM unnest($1::uuid[]) AS asked (job_id) LEFT JOIN customization_jobs AS job USING (job_id)
            """,
            subjects,
        )
        ends = Counter(
            row["status"] or ("kept" if row["kept"] else "early" if row["early"] else "unknown")
            if row["status"] != "pending" or not row["later"]
            else "later"
            for row in rows
        )
        assert not ends["unknown"] + ends["pending"] + ends["processing"], ends
        return True

    await wait_for(all_ended, deadline_s=60, what="every event to come to an end")
    await customer.gets_three_activities()
    await books.execute("DELETE FROM early_cancellations WHERE job_id = ANY($1)", subjects)
