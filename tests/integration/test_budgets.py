"""A month's budget at admission, by command, and how its marks are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import asyncpg
import pytest

from consumers.quota.admission import Admissions
from infra.errors import DependencyDown
from infra.postgres import Database
from producers.schedule.budgets import Budgets
from producers.schedule.taker import Taker
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.failed_events import FailedEvents
from streams.jobs.events import JobAccepted, JobRejected
from streams.jobs.organization_facts import BudgetReached
from streams.jobs.topics import read_fact
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.quota_scene import NOON, PERIOD, ManualClock, add_organization, facts, request


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Database]:
    """A stage's connections."""
    opened = Database(database_url, size=4)
    yield opened
    await opened.close()


async def set_budget(database: Pool, budget: int | None, kind: str | None = None) -> None:
    """Give acme a budget of its own."""
    await database.execute(
        "UPDATE subscriptions SET budget = $1, budget_kind = $2 WHERE organization_id = 'acme'", budget, kind
    )


async def spend(database: Pool, cost: int, period: str = PERIOD) -> None:
    """Have the month's calls cost so much."""
    await database.execute(
        "INSERT INTO llm_usage"
        " (organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls, cost)"
        " VALUES ('acme', $1, 1, 1, 1, 0, $2) ON CONFLICT (organization_id, period) DO UPDATE SET cost = $2",
        *(period, cost),
    )


@pytest.mark.parametrize(
    ("own", "plans", "spent", "admitted"),
    [
        ((100, "hard"), None, 99, True),
        ((100, "hard"), None, 100, False),
        ((100, None), None, 100, False),
        ((100, "soft"), None, 1_000, True),
        ((None, None), (100, None), 100, False),
        ((None, None), (100, "soft"), 100, True),
        ((200, None), (100, "soft"), 150, True),
        ((200, None), (100, "soft"), 200, False),
        ((0, "hard"), None, 0, False),
        ((None, None), None, 10**12, True),
    ],
)
async def test_a_run_is_admitted_while_a_hard_budget_has_something_left(
    database: Pool,
    stage: Database,
    own: tuple[int | None, str | None],
    plans: tuple[int, str | None] | None,
    spent: int,
    *,
    admitted: bool,
) -> None:
    """Its own goes before its plan's; a month before does not count."""
    await add_organization(database)
    await set_budget(database, *own)
    if plans:
        await database.execute("INSERT INTO plan_shares (plan, budget, budget_kind) VALUES ('team', $1, $2)", *plans)
    await spend(database, 10**15, "2031-03")
    await spend(database, spent)
    (fact,) = facts(await Admissions(stage, ManualClock(), trust_threshold=0.5).admit([request()]))
    assert isinstance(fact, JobAccepted if admitted else JobRejected)
    if isinstance(fact, JobRejected):
        assert fact.data.code == "budget_exceeded"


class Published:
    """A broker that keeps what is written to it, or is away."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away = False

    async def publish(self, records: Sequence[Record]) -> None:
        if self.away:
            raise DependencyDown("broker", "away")
        self.records.extend(records)

    def facts(self) -> list[BudgetReached]:
        read = [read_fact(Delivery(one.topic, one.key, one.value, one.headers)) for one in self.records]
        return [one for one in read if isinstance(one, BudgetReached)]


class Marks:
    """The schedule's two parts that tell of marks, and the stream that they write to."""

    def __init__(self, stage: Database) -> None:
        self.clock = ManualClock(NOON)
        self.stream = Published()
        self.tell = Budgets(stage, self.clock).tell
        self.publish = Taker(stage, self.stream, FailedEvents(stage, self.clock), self.clock).tick

    def said(self) -> list[tuple[str, int, int, int]]:
        return [
            (one.data.period, one.data.percent, one.data.budget, one.data.spent)
            for one in sorted(self.stream.facts(), key=lambda fact: fact.time)
        ]


@pytest.fixture
async def marks(database: Pool, stage: Database) -> Marks:
    """Acme has a soft budget of 1,000."""
    await add_organization(database)
    await set_budget(database, 1_000, "soft")
    return Marks(stage)


async def test_each_mark_is_told_once(database: Pool, marks: Marks) -> None:
    """At 80 and at 100 %, as a fact of the organization; a raised budget has marks of its own."""
    for cost, expected in ((799, 0), (800, 1), (900, 0), (1_000, 1), (5_000, 0)):
        await spend(database, cost)
        assert await marks.tell() == expected
    await set_budget(database, 6_000, "soft")
    assert await marks.tell() == 1
    rows = await database.fetch("SELECT percent, budget, cost FROM budget_marks ORDER BY percent")
    assert [tuple(row) for row in rows] == [(80, 6_000, 5_000), (100, 1_000, 1_000)]
    await marks.publish()
    assert marks.said() == [(PERIOD, 80, 1_000, 800), (PERIOD, 100, 1_000, 1_000), (PERIOD, 80, 6_000, 5_000)]
    assert len({fact.id for fact in marks.stream.facts()}) == 3
    for fact, entry in zip(marks.stream.facts(), marks.stream.records, strict=True):
        assert (fact.subject, entry.key, fact.data.kind, entry.topic) == ("acme", b"acme", "soft", "job-events")


async def test_both_marks_are_told_at_once_where_both_are_passed(database: Pool, marks: Marks) -> None:
    """One call may cost more than a fifth of the budget; a budget of nothing is spent at once."""
    await spend(database, 4_000)
    assert await marks.tell() == 2
    await set_budget(database, 0, "hard")
    assert await marks.tell() == 2
    await marks.publish()
    assert [one[1:] for one in marks.said()] == [
        (80, 1_000, 4_000),
        (100, 1_000, 4_000),
        (80, 0, 4_000),
        (100, 0, 4_000),
    ]


async def test_two_schedule_workers_tell_a_mark_once(database: Pool, stage: Database, marks: Marks) -> None:
    """Both may believe to be the leader: one of them notes the mark."""
    await spend(database, 1_000)
    other = Budgets(stage, marks.clock)
    assert sum(await asyncio.gather(*(tell() for tell in (marks.tell, other.tell) * 4))) == 2
    await marks.publish()
    assert [one[1] for one in marks.said()] == [80, 100]


async def test_a_fact_waits_for_a_broker_that_is_away(database: Pool, marks: Marks) -> None:
    """The transaction that notes a mark keeps its fact: neither is there alone, and nothing is told twice."""
    marks.stream.away = True
    await spend(database, 800)
    assert await marks.tell() == 1
    await marks.publish()
    assert (marks.stream.records, await database.fetchval("SELECT count(*) FROM scheduled_events")) == ([], 1)
    marks.stream.away = False
    assert await marks.tell() == 0
    await marks.publish()
    await marks.publish()
    assert [one[1] for one in marks.said()] == [80]


async def test_a_mark_without_its_fact_is_never_noted(database: Pool, marks: Marks) -> None:
    """Where the fact cannot be kept, the mark is found again by the next look."""
    await spend(database, 800)
    await database.execute("ALTER TABLE scheduled_events ADD CONSTRAINT full_disk CHECK (topic <> 'job-events')")
    with pytest.raises(asyncpg.CheckViolationError):
        await marks.tell()
    assert await database.fetchval("SELECT count(*) FROM budget_marks") == 0
    await database.execute("ALTER TABLE scheduled_events DROP CONSTRAINT full_disk")
    assert await marks.tell() == 1


async def test_a_mark_of_the_last_seconds_of_a_month_is_told(database: Pool, marks: Marks) -> None:
    """The look that finds it may come after midnight."""
    await spend(database, 800)
    marks.clock.time = datetime(2031, 5, 1, 0, 0, 10, tzinfo=UTC)
    assert await marks.tell() == 1
    await spend(database, 900, "2031-05")
    assert await marks.tell() == 1
    marks.clock.time = datetime(2031, 5, 2, tzinfo=UTC)
    await spend(database, 1_000)
    assert await marks.tell() == 0
    await marks.publish()
    assert [(one[0], one[1]) for one in marks.said()] == [(PERIOD, 80), ("2031-05", 80)]


async def test_an_odd_row_of_the_backend_keeps_nobody_from_being_told(database: Pool, marks: Marks) -> None:
    """The backend's table takes any ID and any number; an ID that no event can have has spent nothing."""
    await add_organization(database, "o" * 65)
    await add_organization(database, "below")
    await database.execute("UPDATE subscriptions SET budget = -5 WHERE organization_id <> 'acme'")
    await spend(database, 800)
    assert await marks.tell() == 3
    await marks.publish()
    assert {(fact.subject, fact.data.budget) for fact in marks.stream.facts()} == {("below", 0), ("acme", 1_000)}


async def test_a_budget_is_set_and_shown_by_command(teamfit: Run, database: Pool) -> None:
    """In whole units of money; without any price it is refused, since nothing could be counted."""
    await add_organization(database)
    refused = await teamfit("organization", "set", "acme", "--budget", "50")
    assert (refused.exit_code, "teamfit llm prices set" in refused.stderr) == (1, True)
    await teamfit("llm", "prices", "set", "m", "1", "1")
    wrong = await teamfit("organization", "set", "acme", "--budget", "much")
    assert (wrong.exit_code, "budget: 'much' is no number" in wrong.stderr) == (1, True)
    await teamfit("organization", "set", "acme", "--budget", "50.25", "--budget-kind", "soft")
    shown = json.loads((await teamfit("organization", "show", "acme", "--json")).stdout)
    assert (shown["budget"], shown["budget_kind"]) == (50_250_000, "soft")
    assert "50.25" in (await teamfit("organization", "show", "acme")).stdout
    await teamfit("organization", "set", "acme", "--as-plan")
    await teamfit("organization", "set", "acme", "--budget", "3")
    shown = json.loads((await teamfit("organization", "show", "acme", "--json")).stdout)
    assert (shown["budget"], shown["budget_kind"]) == (3_000_000, "hard")  # which is what counts where none is said
    await teamfit("organization", "set", "acme", "--as-plan")
    await teamfit("plan", "set", "team", "--budget", "7")
    (plan,) = json.loads((await teamfit("plan", "list", "--json")).stdout)
    assert (plan["budget"], plan["budget_kind"]) == (7_000_000, "hard")
    assert json.loads((await teamfit("organization", "show", "acme", "--json")).stdout)["budget"] is None
    assert "7.00" in (await teamfit("plan", "list")).stdout
