"""Replay under any history of failures, plans, crashes, repeats and operators at once."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from infra.postgres import Database
from producers import applying
from producers.replay import apply as replay_apply
from producers.replay.errors import ReplayError
from producers.replay.plans import Plan
from streams.delivery.dead_letters import dead_letter
from streams.delivery.deliveries import Delivery, Record
from streams.jobs.events import JobAccepted, JobId, JobRequested, parse_event
from streams.jobs.outcomes import complete_runs, fail_run
from streams.jobs.stages import GENERATION
from streams.jobs.topics import JOB_ACCEPTED, JOB_EVENTS, JOB_REQUESTS
from tests.conftest import Pool
from tests.integration.quota_scene import completed, request, usage
from tests.integration.replay_scene import REFUSAL, Scene, poison

T = TypeVar("T")

_QUOTA = 4
_TABLES = (
    "replay_plan_items", "replay_plans", "failed_events", "quota_ledger", "quota_usage", "job_outcomes",
    "dispatch_runs", "dispatch_organizations", "subscriptions", "teams", "organizations",
)  # fmt: skip


class ReplayMachine(RuleBasedStateMachine):
    """The stages around replay, by hand: quota admits and settles, generation completes, fails, or is killed."""

    runner: asyncio.Runner
    pool: Pool
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(self.pool, self.database)
        self.replays = replace(self.scene.replays, release_limit=timedelta(seconds=0.05))
        self.plans: list[Plan] = []
        self.accepted: list[JobAccepted] = []
        self.sent: dict[tuple[JobId, int], JobRequested] = {}
        self.wait(self._clean())
        # Else most histories would have nothing to replay.
        self._admit([request(), request()])
        for accepted, end in zip(self.accepted, ("failed", "killed"), strict=True):
            self.wait(self._generate(accepted, end))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.runner.run(work)

    async def _clean(self) -> None:
        for table in _TABLES:
            await self.pool.execute(f"DELETE FROM {table}")
        await self.scene.organization(monthly_quota=_QUOTA)

    @rule()
    def request_job(self) -> None:
        """A customer asks."""
        self._admit([request()])

    def _admit(self, requests: list[JobRequested]) -> None:
        facts = self.wait(self.scene.admit(*requests))
        self.accepted += [fact for fact in facts if isinstance(fact, JobAccepted)]
        self.scene.topics.records += [
            Record(JOB_EVENTS, one.key, one.encode()) for one in facts if one.type.endswith("rejected.v1")
        ]

    @precondition(lambda self: self.accepted)
    @rule(which=st.integers(0, 100), end=st.sampled_from(["completed", "failed", "killed"]))
    def generate(self, which: int, end: str) -> None:
        """The generation stage takes an accepted run; the same delivery may come again."""
        self.wait(self._generate(self.accepted[which % len(self.accepted)], end))

    async def _generate(self, accepted: JobAccepted, end: str) -> None:
        wanted = request(job_id=accepted.job_id, run=accepted.run)
        delivery = Delivery(JOB_ACCEPTED, accepted.key, accepted.encode())
        if end == "completed":
            async with self.database.transaction() as connection:
                done = await complete_runs(connection, [(accepted.job_id, accepted.run)])
            if done:
                self.scene.topics.records.append(Record(JOB_EVENTS, accepted.key, completed(wanted).encode()))
        elif end == "killed":
            await self.scene.keep(poison(JOB_ACCEPTED, GENERATION, accepted.key, accepted.encode()))
        elif facts := await fail_run(self.database, self.scene.clock, accepted, REFUSAL):
            self.scene.topics.records += facts
            await self.scene.keep(dead_letter(delivery, group=GENERATION, error=REFUSAL))

    @rule()
    def settle(self) -> None:
        """The quota stage reads what ended."""
        self.wait(self.scene.settle())

    @rule(again=st.booleans())
    def admit_replayed(self, again: bool) -> None:
        """The quota stage reads the requests, perhaps twice."""
        requests = self._requests()
        self._admit(requests)
        if again:
            self._admit(requests[::-1])

    def _requests(self) -> list[JobRequested]:
        events = [parse_event(one.value) for one in self.scene.topics.take(JOB_REQUESTS)]
        requests = [one for one in events if isinstance(one, JobRequested)]
        for one in requests:
            first = self.sent.setdefault((one.job_id, one.run), one)
            assert (first.id, first.data) == (one.id, one.data), "one run, two requests"
        return requests

    @rule(at_once=st.booleans())
    def plan(self, at_once: bool) -> None:
        """An operator makes a plan, keeps it, and may apply it at once while the quota stage has a backlog of facts."""
        self.plans.append(self.wait(self.scene.plan()))
        if at_once:
            self.wait(self._apply(self.plans[-1:]))
            self._admit(self._requests())

    @precondition(lambda self: self.plans)
    @rule(which=st.integers(0, 100), other=st.integers(0, 100), dies_after=st.none() | st.integers(0, 2))
    def apply(self, which: int, other: int, dies_after: int | None) -> None:
        """Two operators apply plans of any age at once, perhaps the same one; their processes may die on the way."""
        self.scene.topics.breaks_after = dies_after
        chosen = [self.plans[number % len(self.plans)] for number in (which, other)]
        self.wait(self._apply(chosen))
        self.scene.topics.breaks_after = None

    async def _apply(self, chosen: list[Plan]) -> None:
        ended = await asyncio.gather(
            *(self.replays.apply(plan.id, rate=1000) for plan in chosen), return_exceptions=True
        )
        for one in ended:
            assert isinstance(one, Plan | ReplayError | RuntimeError), one

    @invariant()
    def books_are_right(self) -> None:
        """Never more units than there are, never two held by one job, and no run after the one that completed."""
        reserved, charged = self.wait(usage(self.pool))
        assert reserved + charged <= _QUOTA
        self.wait(self._check_jobs())

    async def _check_jobs(self) -> None:
        assert (
            await self.pool.fetch(
                "SELECT job_id FROM quota_ledger WHERE state IN ('reserved', 'charged') "
                "GROUP BY job_id HAVING count(*) > 1"
            )
            == []
        )
        assert (
            await self.pool.fetch(
                "SELECT later.job_id FROM quota_ledger AS later JOIN job_outcomes AS done "
                "ON done.job_id = later.job_id AND done.outcome = 'completed' AND later.run > done.run"
            )
            == []
        )

    def teardown(self) -> None:
        """At rest, a last plan leaves no failed event that could be sent, and every unit is charged or back."""
        self.wait(self.scene.settle())
        for _ in range(2):
            plan = self.wait(self.scene.plan())
            self.wait(self._finish(plan))
            self._admit(self._requests())
            for accepted in self.accepted:
                self.wait(self._generate(accepted, "completed"))
            self.wait(self.scene.settle())
        assert self.wait(self.scene.plan()).total == 0
        reserved, charged = self.wait(usage(self.pool))
        done = self.wait(self.pool.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'"))
        assert (reserved, charged) == (0, done)

    async def _finish(self, plan: Plan) -> None:
        # The quota stage is at work meanwhile.
        applying = asyncio.create_task(self.scene.replays.apply(plan.id, rate=1000))
        while not applying.done():
            await self.scene.settle()
            await asyncio.sleep(0.01)
        assert applying.result().state == "finished"


def test_any_history_of_replays_keeps_the_books_right(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans applied late, twice, at once and half never take a second unit, and leave nothing behind."""
    # One event a batch, and little waiting.
    monkeypatch.setattr(applying, "_BATCH_S", 0.001)
    monkeypatch.setattr(replay_apply, "_LOOK_S", 0.01)
    with asyncio.Runner() as runner:
        pool = runner.run(_pool(database_url))
        database = Database(database_url, size=6)
        parts = {"runner": runner, "pool": pool, "database": database}
        try:
            run_state_machine_as_test(
                type("Machine", (ReplayMachine,), parts),
                settings=settings(
                    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            runner.run(pool.close())
            runner.run(database.close())


async def _pool(url: str) -> Pool:
    return await asyncpg.create_pool(url, min_size=1, max_size=2)
