"""Rows of the TEAMFIT backend for tests: a good customer and one of each kind that is refused."""

from datetime import UTC, datetime

from tests.conftest import Pool

_ORGANIZATIONS = """
INSERT INTO organizations (id, name, trust_score) VALUES
    ('acme', 'Acme', 0.9), ('rival', 'Rival', 0.9), ('free', 'Free', 0.9), ('shady', 'Shady', 0.1),
    ('used', 'Used', 0.9);
INSERT INTO subscriptions (organization_id, plan, status, monthly_quota) VALUES
    ('acme', 'pro', 'active', 100), ('rival', 'pro', 'active', 100), ('free', 'free', 'active', 100),
    ('shady', 'pro', 'active', 100), ('used', 'pro', 'active', 5);
INSERT INTO teams (id, organization_id, name)
SELECT id || '-team', id, 'Team of ' || name FROM organizations;
"""


async def add_organizations(database: Pool) -> None:
    """Add them. Each has one team, `<id>-team`; `used` has its quota of this month used up."""
    await database.execute(_ORGANIZATIONS)
    await database.execute(
        "INSERT INTO quota_usage (organization_id, period, reserved, charged) VALUES ('used', $1, 2, 3)",
        datetime.now(UTC).strftime("%Y-%m"),
    )
