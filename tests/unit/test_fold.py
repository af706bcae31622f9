"""The fold of a job's events into its row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.projection.fold import JobState, fold, fold_all, status_of
from streams.jobs.events import JobEvent
from tests.facts import ENDS, JOB, at, cancelled, completed, failed, progressed, rejected, requested, started

NEW = JobState(JOB)
FOREIGN: list[JobEvent] = [requested(run=9, organization="rival"), started(run=1, organization="rival")]


@st.composite
def histories(draw: st.DrawFn) -> list[JobEvent]:
    """What the stages can say about one job: runs that begin, are tried, perhaps again, and end at most once."""
    events: list[JobEvent] = []
    for run in range(1, draw(st.integers(1, 3)) + 1):
        minute = st.integers(0, 500)
        events.append(requested(draw(minute), run=run))
        events += [started(draw(minute), run=run, attempt=n) for n in range(1, draw(st.integers(1, 3)) + 1)]
        events += [progressed(draw(minute), run=run)] * draw(st.booleans())
        end = draw(st.sampled_from([None, *ENDS]))
        events += [end(draw(minute), run=run)] if end else []
    return events


@given(histories(), st.data())
def test_order_and_duplicates_do_not_matter(history: list[JobEvent], data: st.DataObject) -> None:
    """However a job's events are shuffled and repeated on the way, its row ends up the same."""
    repeated = history + data.draw(st.lists(st.sampled_from(history), max_size=10))
    shuffled = data.draw(st.permutations(repeated))
    assert fold_all(NEW, shuffled) == fold_all(NEW, history)


@given(histories(), st.data())
def test_any_split_into_batches_gives_the_same_row(history: list[JobEvent], data: st.DataObject) -> None:
    """Folding in two steps, from the row that the first has left, equals folding at once."""
    cut = data.draw(st.integers(0, len(history)))
    assert fold_all(fold_all(NEW, history[:cut]), history[cut:]) == fold_all(NEW, history)


@given(histories(), st.data())
def test_a_job_never_moves_back(history: list[JobEvent], data: st.DataObject) -> None:
    """In whatever order its events come, a job's (run, rank) only grows."""
    rank = {"pending": 0, "processing": 1}
    state = NEW
    for event in data.draw(st.permutations(history)):
        following = fold(state, event)
        assert (following.run, rank.get(following.status, 2)) >= (state.run, rank.get(state.status, 2))
        state = following


@given(histories(), st.data())
def test_another_organizations_events_change_nothing(history: list[JobEvent], data: st.DataObject) -> None:
    """Once a job belongs to an organization, no event of another one changes it, of a higher run neither."""
    state = fold_all(NEW, history)
    foreign = data.draw(st.sampled_from(FOREIGN))
    assert fold(state, foreign) == state


def test_a_run_from_request_to_completion() -> None:
    """The row says when the job was requested, taken up and completed."""
    state = fold_all(NEW, [requested(0), started(1), progressed(2), completed(3)])
    assert state == JobState(
        JOB,
        organization_id="acme",
        team_id="t1",
        requirements="puzzles",
        run=1,
        status="completed",
        created_at=at(0),
        started_at=at(1),
        completed_at=at(3),
    )


@pytest.mark.parametrize(
    ("end", "status", "code", "message"),
    [
        (failed(), "failed", "llm_refusal", "it would not"),
        (rejected(), "failed", "quota_exceeded", "none left"),
        (cancelled(), "cancelled", "cancelled", "no longer wanted"),
    ],
)
def test_an_end_without_activities_says_why(end: JobEvent, status: str, code: str, message: str) -> None:
    """Runs that ended badly keep their code and their message; a rejection is a failure to its customer."""
    state = fold_all(NEW, [requested(), end])
    assert (state.status, state.error_code, state.error_message) == (status, code, message)
    assert state.completed_at == end.time


def test_a_higher_run_starts_over() -> None:
    """A replay clears the error and the times of the run before, and keeps when the job was first requested."""
    state = fold_all(NEW, [requested(0), started(1), failed(3), requested(60, run=2)])
    assert (state.run, state.status, state.created_at) == (2, "pending", at(0))
    assert (state.error_code, state.error_message, state.started_at, state.completed_at) == (None, None, None, None)


def test_the_first_end_of_a_run_wins() -> None:
    """Should two ends of one run ever be archived, the row keeps the first."""
    assert fold_all(NEW, [requested(), completed(), failed()]).status == "completed"


def test_the_team_of_the_first_request_stays() -> None:
    """A later event does not move a job to another team."""
    assert fold_all(NEW, [requested(team="t1"), requested(run=2, team="t2")]).team_id == "t1"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("SUCCESS", "completed"),
        ("FAILURE", "failed"),
        ("Pending", "pending"),
        ("RETRY", "processing"),
        ("?", "processing"),
    ],
)
def test_statuses_of_the_celery_days_are_understood(text: str, status: str) -> None:
    """Old rows hold Celery's words; customers see ours."""
    assert status_of(text) == status
