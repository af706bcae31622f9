"""The admission rules, as the intake and the quota stage ask them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from infra.api.problems import PROBLEMS
from streams.jobs.admission import Standing, next_period, period_of, refusal

NOW = datetime(2031, 12, 31, 23, 59, tzinfo=UTC)
GOOD = Standing(
    organization_id="acme",
    team_id="red",
    organization_exists=True,
    team_exists=True,
    trust_score=0.5,
    plan="pro",
    status="active",
    monthly_quota=2,
    priority=False,
)


@pytest.mark.parametrize(
    ("standing", "used", "code", "status"),
    [
        (replace(GOOD, organization_exists=False, team_exists=False), 1, "organization_not_found", 404),
        (replace(GOOD, team_exists=False, plan="free", trust_score=0), 1, "team_not_found", 404),
        (replace(GOOD, plan=None, status=None, trust_score=0), 1, "subscription_required", 402),
        (replace(GOOD, plan="free"), 1, "subscription_required", 402),
        (replace(GOOD, status="past_due"), 1, "subscription_required", 402),
        (replace(GOOD, trust_score=0.49), 1, "trust_too_low", 403),
        (replace(GOOD, trust_score=0), 3, "trust_too_low", 403),
        (GOOD, 2, "quota_exceeded", 429),
        (GOOD, 3, "quota_exceeded", 429),
    ],
)
def test_the_first_rule_that_refuses_gives_the_code(standing: Standing, used: int, code: str, status: int) -> None:
    """Rules are asked in a fixed order, so a customer with several problems always hears of the same one first."""
    refused = refusal(standing, used=used, trust_threshold=0.5, at=NOW)
    assert refused is not None
    assert (refused.code, PROBLEMS[refused.code][0]) == (code, status)
    assert "organization acme" in str(refused)


def test_a_good_standing_is_not_refused() -> None:
    """The last unit of quota can be used, and the threshold itself is trust enough."""
    assert refusal(GOOD, used=1, trust_threshold=0.5, at=NOW) is None


@pytest.mark.parametrize(
    ("at", "retry_after"), [(NOW, timedelta(minutes=1)), (datetime(2031, 12, 1, tzinfo=UTC), timedelta(hours=1))]
)
def test_a_used_up_quota_says_when_to_come_back(at: datetime, retry_after: timedelta) -> None:
    """It is the time until the next month, and at most an hour: the plan may be upgraded before the month's end."""
    refused = refusal(GOOD, used=2, trust_threshold=0.5, at=at)
    assert refused is not None
    assert (refused.retry_after, refused.reset_at) == (retry_after, datetime(2032, 1, 1, tzinfo=UTC))


def test_periods_are_utc_months() -> None:
    """A moment that is already January in the east still counts for December."""
    east = timezone(timedelta(hours=14))
    assert period_of(datetime(2032, 1, 1, 9, tzinfo=east)) == "2031-12"
    assert next_period(datetime(2032, 1, 1, 9, tzinfo=east)) == datetime(2032, 1, 1, tzinfo=UTC)
