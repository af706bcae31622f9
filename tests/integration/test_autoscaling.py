"""KEDA's query counts what waits, what runs and what is due, and nothing that is later."""

from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from streams.jobs.stages import GENERATION, RUN_TOPICS
from tests.conftest import Pool

_FILE = Path(__file__).parents[2] / "infra" / "deploy" / "kubernetes" / "autoscaled" / "generation.yaml"
_QUERY = next(
    one["spec"]["triggers"][0]["metadata"]["query"]
    for one in yaml.safe_load_all(_FILE.read_text())
    if one["kind"] == "ScaledObject"
)


async def test_nothing_is_counted_in_an_idle_system(database: Pool) -> None:
    """Zero, not NULL: only zero has the last worker stopped."""
    assert await database.fetchval(_QUERY) == 0


@pytest.mark.parametrize(
    ("state", "ended", "due", "counted"),
    [
        ("arrived", False, False, 1),
        ("waiting", False, False, 1),
        ("released", False, False, 1),
        ("released", True, False, 0),
        ("parked", False, False, 0),
        ("parked", False, True, 1),
        ("parked", True, True, 0),
    ],
)
async def test_a_run_counts_while_a_worker_is_needed(
    database: Pool, state: str, ended: bool, due: bool, counted: int
) -> None:
    """In each state that a run may have."""
    await database.execute(
        "INSERT INTO dispatch_runs (job_id, run, organization_id, state, rank, topic, event, ended, due) "
        "VALUES ($1, 1, 'hazel', $2, 0, 'job-accepted', '', $3, $4)",
        uuid4(),
        state,
        ended,
        due,
    )
    assert await database.fetchval(_QUERY) == counted


@pytest.mark.parametrize(
    ("topic", "seconds", "counted"),
    [
        *((topic, -1, 1) for topic in RUN_TOPICS[GENERATION]),
        ("job-accepted", 3600, 0),
        ("job-requests", -1, 0),
    ],
)
async def test_a_retry_counts_when_it_is_due(database: Pool, topic: str, seconds: int, counted: int) -> None:
    """Those of generation alone: other stages have workers at any time."""
    await database.execute(
        "INSERT INTO scheduled_events (id, topic, due_at, reason) "
        "VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3), 'retry')",
        uuid4(),
        topic,
        seconds,
    )
    assert await database.fetchval(_QUERY) == counted
