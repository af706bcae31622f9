"""The early check of requests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from producers.intake.admission import Standing, period_of, refusal

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
    assert problem.headers == {"Retry-After": "61"}


def test_periods_are_utc_months() -> None:
    """A moment that is already January in the east still counts for December."""
    east = timezone(timedelta(hours=14))
    assert period_of(datetime(2032, 1, 1, 9, tzinfo=east)) == "2031-12"
