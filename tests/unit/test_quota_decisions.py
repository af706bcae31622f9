"""The admission rules, without a database."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.quota.decisions import decide
from consumers.quota.handlers import Facts
from infra.clock import SystemClock
from infra.errors import InvalidEvent
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.deliveries import Delivery
from streams.jobs.admission import Standing
from streams.jobs.events import Accepted, JobAccepted, JobCancelRequested, JobId, JobRequested, JobStarted, Started
from streams.jobs.facts import job_requested
from streams.jobs.topics import expecting, read_event

NOON = datetime(2031, 4, 15, 12, tzinfo=UTC)
JOB = JobId(UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7"))


def standing(
    *,
    organization_exists: bool = True,
    trust_score: float = 0.9,
    team_exists: bool = True,
    plan: str | None = "team",
    status: str | None = "active",
    monthly_quota: int = 50,
) -> Standing:
    """An organization that may request, but for what the test changes."""
    return Standing(
        organization_id="acme",
        team_id="red",
        organization_exists=organization_exists,
        trust_score=trust_score,
        team_exists=team_exists,
        plan=plan,
        status=status,
        monthly_quota=monthly_quota,
        priority=False,
    )


def request(organization_id: str = "acme", job_id: JobId = JOB, run: int = 1) -> JobRequested:
    """A request of the organization's red team."""
    return job_requested(
        job_id=job_id, organization_id=organization_id, team_id="red", requirements="a quiet hour", at=NOON, run=run
    )


def test_a_full_quota_is_said_with_its_numbers_and_period() -> None:
    """The refusal names the limit and the month, and what to do."""
    [decision] = decide([(request(run=2), standing())], used={"acme": 50}, trust_threshold=0.5, at=NOON)
    assert (decision.state, decision.code) == ("rejected", "quota_exceeded")
    assert decision.message == (
        "organization acme has used its monthly quota (0 of 50 left in 2031-04); wait for the next month, or upgrade "
        "the plan"
    )


def test_a_quota_lowered_below_its_use_admits_nobody() -> None:
    """A plan that was downgraded in mid-month leaves no negative rest behind in the message."""
    [decision] = decide([(request(), standing(monthly_quota=5))], used={"acme": 9}, trust_threshold=0.5, at=NOON)
    assert "(0 of 5 left in 2031-04)" in (decision.message or "")


@given(
    organizations=st.lists(st.sampled_from(["acme", "globex", "initech"]), max_size=40),
    quotas=st.fixed_dictionaries({name: st.integers(0, 10) for name in ("acme", "globex", "initech")}),
    used=st.fixed_dictionaries({name: st.integers(0, 10) for name in ("acme", "globex", "initech")}),
)
def test_the_first_requests_of_an_organization_take_what_is_left(
    organizations: list[str], quotas: dict[str, int], used: dict[str, int]
) -> None:
    """With k units left exactly the first k requests are admitted, whatever other organizations ask in between."""
    asked = [(request(name, JobId(uuid4())), standing(monthly_quota=quotas[name])) for name in organizations]
    decisions = decide(asked, used=used, trust_threshold=0.5, at=NOON)
    for name, quota in quotas.items():
        states = [decision.state for decision in decisions if decision.organization_id == name]
        admitted = min(max(quota - used[name], 0), len(states))
        assert states == ["reserved"] * admitted + ["rejected"] * (len(states) - admitted)


def test_a_fact_on_the_topic_of_requests_is_refused_by_its_type() -> None:
    """The message names the field, what it holds and what belongs there."""
    event = JobStarted(id="1", subject=JOB, time=NOON, data=Started(organization_id="acme", attempt=1))
    with pytest.raises(InvalidEvent, match=r"type: 'teamfit.job.started.v1'.*'teamfit.job.requested.v1'"):
        expecting(JobRequested, JobCancelRequested)(Delivery("job-requests", None, event.encode()))


def test_a_request_on_the_topic_of_facts_is_refused_by_its_type() -> None:
    """Requests and acceptances have topics of their own; on job-events nobody would act on them."""
    accepted = JobAccepted(
        id="1",
        subject=JOB,
        time=NOON,
        data=Accepted(organization_id="acme", team_id="red", requirements="a quiet hour"),
    )
    for event in (request(), accepted):
        with pytest.raises(InvalidEvent, match=rf"type: '{event.type}' does not belong on job-events; expected"):
            read_event(Delivery("job-events", None, event.encode()))


async def test_a_fact_that_ends_no_run_settles_nothing() -> None:
    """A start costs the quota stage no transaction."""
    event = JobStarted(id="1", subject=JOB, time=NOON, data=Started(organization_id="acme", attempt=1))
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none", size=1)
    delivery = Delivery("job-events", None, event.encode())
    assert await Facts(nowhere, SystemClock(), Settings(_env_file=None)).handle(event, delivery) == ()
