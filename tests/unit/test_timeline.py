"""A job's timeline is drawn over the pipeline's own times; what a sender says of its own is no reason to stretch it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from infra.console.timeline import WIDTH, Timeline, timeline_of
from infra.operations.jobs import JobFact, JobIntake, JobLife, JobStanding, RunEnd

NOW = datetime(2031, 4, 3, 8, tzinfo=UTC)
ODD = [timedelta(days=-40_000), timedelta(days=-365), timedelta(days=365), timedelta(days=300_000)]


def _life(*, facts: list[tuple[str, datetime]], ended: bool = True, began: datetime = NOW) -> JobLife:
    end = began + timedelta(seconds=10)
    status = JobStanding(
        *("completed" if ended else "pending", 1, "acme", "t", None, None, began, None, end if ended else None, end)
    )
    return JobLife(
        job_id=uuid4(),
        request=JobIntake("acme", "t", None, began),
        job=status,
        facts=[JobFact(1, at, f"teamfit.job.{name}.v1", "a sender", None, None) for name, at in facts],
        outcomes=[RunEnd(1, "completed", end)] if ended else [],
        quota=(),
        calls=(),
        activities=(),
        scheduled=(),
        failed=(),
        reemissions=(),
        spent=(),
        waiting_for=None,
    )


def _labels(drawn: Timeline | None) -> dict[str, float]:
    assert drawn is not None
    assert all(0 <= mark.x <= WIDTH for mark in drawn.marks)
    return {mark.label: mark.x for mark in drawn.marks}


@pytest.mark.parametrize("odd", ODD, ids=str)
@pytest.mark.parametrize("ended", [True, False])
def test_an_odd_time_is_marked_and_stretches_nothing(odd: timedelta, ended: bool) -> None:
    """Years before or after, of a job that has ended or goes on: the rest keeps its room, and the axis its seconds."""
    good = [("accepted", NOW + timedelta(seconds=1)), ("completed", NOW + timedelta(seconds=10))]
    drawn = timeline_of(_life(facts=[("requested", NOW + odd), *good], ended=ended), now=NOW + timedelta(seconds=20))
    found = _labels(drawn)
    assert drawn is not None
    assert drawn.ticks[-1][1] in {"10.0 s", "20.0 s"}
    assert found["completed"] - found["accepted"] > WIDTH / 4
    (marked,) = [mark for mark in drawn.marks if mark.label == "requested (odd time)"]
    assert f"{NOW + odd:%Y-%m-%d}" in marked.says


def test_long_waits_of_the_pipeline_itself_are_no_odd_times() -> None:
    """A job that waits for a month, or was replayed after a year, is drawn as it was."""
    began = NOW - timedelta(days=30)
    waits = _labels(timeline_of(_life(facts=[("requested", began)], ended=False, began=began), now=NOW))
    assert set(waits) == {"waits", "requested"}


def test_a_job_of_which_only_odd_times_are_known_is_drawn() -> None:
    """Nothing of the pipeline's own stands beside them."""
    life = _life(facts=[("requested", NOW - timedelta(days=900))], began=NOW - timedelta(days=900))
    only = JobLife(**{name: getattr(life, name) for name in life.__slots__} | {"request": None, "outcomes": ()})
    assert "requested" in _labels(timeline_of(only, now=NOW))
