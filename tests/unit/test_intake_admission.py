"""The early check of requests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.quota import decisions
from producers.intake.admission import Standing, period_of, refusal
from streams.jobs.events import JobId, job_requested

NOW = datetime(2031, 12, 31, 23, 59, tzinfo=UTC)
GOOD = Standing(
    organization_exists=True,
    team_exists=True,
    trust_score=0.5,
    plan="pro",
    status="active",
    monthly_quota=2,
    used=1,
)


@pytest.mark.parametrize(
    ("standing", "status", "code"),
    [
        (replace(GOOD, organization_exists=False, team_exists=False), 404, "organization_not_found"),
        (replace(GOOD, team_exists=False), 404, "team_not_found"),
        (replace(GOOD, plan=None, status=None), 402, "subscription_required"),
        (replace(GOOD, plan="free"), 402, "subscription_required"),
        (replace(GOOD, status="cancelled"), 402, "subscription_required"),
        (replace(GOOD, trust_score=0.49), 403, "trust_too_low"),
        (replace(GOOD, used=2), 429, "quota_exceeded"),
        (replace(GOOD, used=3, trust_score=0), 403, "trust_too_low"),
    ],
)
def test_each_refusal_has_its_status_and_code(standing: Standing, status: int, code: str) -> None:
    """The first rule that refuses gives the answer."""
    problem = refusal(standing, trust_threshold=0.5, now=NOW)
    assert problem is not None
    assert (problem.status_code, problem.code) == (status, code)


def test_a_good_standing_is_not_refused() -> None:
    """The last unit of quota can be used, and the threshold itself is trust enough."""
    assert refusal(GOOD, trust_threshold=0.5, now=NOW) is None


def test_a_used_up_quota_says_when_to_come_back() -> None:
    """`Retry-After` is the time until the next month begins, in UTC, at a year's end too."""
    problem = refusal(replace(GOOD, used=2), trust_threshold=0.5, now=NOW)
    assert problem is not None
    assert (problem.headers, problem.reset_at) == ({"Retry-After": "61"}, datetime(2032, 1, 1, tzinfo=UTC))


def test_nobody_is_told_to_wait_for_weeks() -> None:
    """Early in a month `Retry-After` is an hour: the plan may be upgraded; `reset_at` has the month's end."""
    problem = refusal(replace(GOOD, used=2), trust_threshold=0.5, now=datetime(2031, 12, 1, tzinfo=UTC))
    assert problem is not None
    assert (problem.headers, problem.reset_at) == ({"Retry-After": "3600"}, datetime(2032, 1, 1, tzinfo=UTC))


def test_periods_are_utc_months() -> None:
    """A moment that is already January in the east still counts for December."""
    east = timezone(timedelta(hours=14))
    assert period_of(datetime(2032, 1, 1, 9, tzinfo=east)) == "2031-12"


@given(
    organization=st.booleans(),
    team=st.booleans(),
    trust=st.sampled_from([0.0, 0.49, 0.5, 1.0]),
    plan=st.sampled_from([None, "free", "pro"]),
    status=st.sampled_from([None, "active", "cancelled"]),
    quota=st.integers(0, 2),
    used=st.integers(0, 3),
)
def test_the_early_check_and_the_quota_stage_agree(
    *, organization: bool, team: bool, trust: float, plan: str | None, status: str | None, quota: int, used: int
) -> None:
    """The check at the door and the decision under lock share no code, so they are held to the same answers here."""
    known = {"trust_score": trust, "plan": plan, "status": status, "monthly_quota": quota}
    early = refusal(
        Standing(organization_exists=organization, team_exists=team, used=used, **known),  # type: ignore[arg-type]
        trust_threshold=0.5,
        now=NOW,
    )
    request = job_requested(
        job_id=JobId(UUID(int=1)), organization_id="acme", team_id="t1", requirements="walk", at=NOW
    )
    standing = decisions.Standing(
        organization_exists=organization,
        team_exists=team,
        priority=False,
        **known,  # type: ignore[arg-type]
    )
    (decision,) = decisions.decide([(request, standing)], used={"acme": used}, trust_threshold=0.5, at=NOW)
    assert (early.code if early else None) == decision.code
