"""The demo organizations: two that are served, and one for each way of being refused."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiosql

from infra.postgres import Connection, Database

_queries = aiosql.from_path(Path(__file__).with_name("organizations.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Team:
    """A demo team; `materials` are pairs of a title and a text."""

    id: str
    name: str
    size: int
    description: str
    materials: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Organization:
    """A demo organization with one team.

    Attributes:
        used: what it has used up of its monthly quota before the demo begins.
        refusal: the code that its requests are refused with, or None if they are served.
    """

    id: str
    name: str
    team: Team
    plan: str = "team"
    monthly_quota: int = 1_000
    priority: bool = False
    trust_score: float = 0.9
    used: int = 0
    refusal: str | None = None


ACME: Final = Organization(
    "acme",
    "Acme",
    Team(
        "acme-platform",
        "Platform",
        9,
        "Backend engineers in three time zones, half of them new since spring.",
        (
            ("Retrospective", "Handovers between time zones go wrong; people do not know whom to ask."),
            ("Last offsite", "The cooking evening was loved. The long lecture on values was not."),
        ),
    ),
    plan="enterprise",
    monthly_quota=1_000_000,
    priority=True,
)
BIRCH: Final = Organization(
    "birch",
    "Birch",
    Team(
        "birch-design",
        "Design",
        6,
        "Product designers who share one studio.",
        (("Wishes", "More time outdoors, nothing competitive, no early mornings."),),
    ),
    monthly_quota=1_000_000,
)
CEDAR: Final = Organization(
    "cedar",
    "Cedar",
    Team("cedar-sales", "Sales", 12, "Account managers."),
    monthly_quota=5,
    used=5,
    refusal="quota_exceeded",
)
DUNE: Final = Organization(
    "dune",
    "Dune",
    Team("dune-founders", "Founders", 3, "Three founders."),
    plan="free",
    monthly_quota=3,
    refusal="subscription_required",
)
ELM: Final = Organization(
    "elm",
    "Elm",
    Team("elm-support", "Support", 8, "Customer support."),
    trust_score=0.1,
    refusal="trust_too_low",
)
ORGANIZATIONS: Final = (ACME, BIRCH, CEDAR, DUNE, ELM)


async def seed(database_url: str) -> None:
    """Put the demo organizations into a migrated database. Rows that are there already stay as they are."""
    database = Database(database_url, size=1)
    try:
        async with database.transaction() as connection:
            for organization in ORGANIZATIONS:
                await _add(connection, organization)
    finally:
        await database.close()


async def _add(connection: Connection, organization: Organization) -> None:
    await _queries.add_organization(
        connection,
        id=organization.id,
        name=organization.name,
        trust_score=organization.trust_score,
        plan=organization.plan,
        monthly_quota=organization.monthly_quota,
        priority=organization.priority,
    )
    if organization.used:
        period = f"{datetime.now(UTC):%Y-%m}"
        await _queries.add_usage(connection, organization_id=organization.id, period=period, charged=organization.used)
    team = organization.team
    await _queries.add_team(
        connection,
        id=team.id,
        organization_id=organization.id,
        name=team.name,
        size=team.size,
        description=team.description,
    )
    for title, content in team.materials:
        await _queries.add_material(connection, team_id=team.id, title=title, content=content)
