"""The ledger under any interleaving, duplication, loss and reordering of what the stage is handed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from consumers.quota.admission import Admissions
from consumers.quota.settlement import Settlements
from infra.errors import InvalidEvent
from infra.postgres import Database
from streams.jobs.events import JobAccepted, JobId, JobRejected, JobRequested, TerminalFact, parse_event
from streams.jobs.outcomes import RunOutcome, decide_outcome
from tests.integration.quota_scene import ManualClock, add_organization, cancelled, completed, failed, request

T = TypeVar("T")

_QUOTAS = {"acme": 3, "globex": 1}
_BATCH = st.lists(st.integers(0, 1_000), min_size=1, max_size=6)
_ENDS: dict[str, Callable[[JobRequested], TerminalFact]] = {
    "completed": completed,
    "failed": failed,
    "cancelled": cancelled,
}


class LedgerMachine(RuleBasedStateMachine):
    """A model of the pipeline around the stage: it requests runs, ends them as other stages do, hands facts over."""

    runner: asyncio.Runner
    workers: list[Database]
    connection: "asyncpg.Connection[asyncpg.Record]"

    def __init__(self) -> None:
        super().__init__()
        self.admissions = [Admissions(one, ManualClock(), trust_threshold=0.5) for one in self.workers]
        self.settlements = [Settlements(one, ManualClock()) for one in self.workers]
        self.requested: list[JobRequested] = []
        self.accepted: dict[tuple[JobId, int], JobRequested] = {}
        self.facts: list[TerminalFact] = []
        self.published: dict[str, bytes] = {}
        self.states: dict[tuple[JobId, int], str] = {}
        self.wait(self._clean())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.runner.run(work)

    async def _clean(self) -> None:
        for table in ("quota_ledger", "quota_usage", "job_outcomes", "subscriptions", "teams", "organizations"):
            await self.connection.execute(f"DELETE FROM {table}")
        for name, quota in _QUOTAS.items():
            await add_organization(self.connection, name, monthly_quota=quota)

    @rule(organization=st.sampled_from([*_QUOTAS, "nobody"]))
    def request_job(self, organization: str) -> None:
        """An upstream service asks for a job."""
        self.requested.append(request(organization))

    @precondition(lambda self: self.requested)
    @rule(which=st.integers(0, 1_000))
    def replay_job(self, which: int) -> None:
        """An operator asks for the next run of a job."""
        of = self.requested[which % len(self.requested)]
        runs = max(one.run for one in self.requested if one.job_id == of.job_id)
        self.requested.append(request(of.data.organization_id, job_id=of.job_id, run=runs + 1))

    @precondition(lambda self: self.requested)
    @rule(which=_BATCH, worker=st.integers(0, 1), lost=st.booleans())
    def deliver_requests(self, which: list[int], worker: int, lost: bool) -> None:
        """A worker is handed requests in any order, some again; it may die before it publishes what follows."""
        batch = [self.requested[n % len(self.requested)] for n in which]
        self._publish(batch, self.wait(self.admissions[worker].admit(batch)), lost=lost)

    @precondition(lambda self: self.facts)
    @rule(which=_BATCH, worker=st.integers(0, 1))
    def deliver_facts(self, which: list[int], worker: int) -> None:
        """A worker is handed facts in any order, some again."""
        self.wait(self.settlements[worker].settle([self.facts[n % len(self.facts)] for n in which]))

    @precondition(lambda self: self.requested and self.facts)
    @rule(asked=_BATCH, again=_BATCH, settled=_BATCH)
    def deliver_at_once(self, asked: list[int], again: list[int], settled: list[int]) -> None:
        """Both workers are handed requests while one of them settles."""
        batches = [[self.requested[n % len(self.requested)] for n in which] for which in (asked, again)]

        async def work() -> list[Any]:
            return await asyncio.gather(
                *(worker.admit(batch) for worker, batch in zip(self.admissions, batches, strict=True)),
                self.settlements[0].settle([self.facts[n % len(self.facts)] for n in settled]),
            )

        *answers, _ = self.wait(work())
        for batch, answer in zip(batches, answers, strict=True):
            self._publish(batch, answer, lost=False)

    @precondition(lambda self: self.requested)
    @rule(which=st.integers(0, 1_000), outcome=st.sampled_from(sorted(_ENDS)))
    def end_run(self, which: int, outcome: RunOutcome) -> None:
        """A stage ends a run. Any may fail or be cancelled at any time; only what was accepted completes."""
        of = self.requested[which % len(self.requested)]
        if outcome == "completed" and (of.job_id, of.run) not in self.accepted:
            return
        if self.wait(self._decide(of, outcome)) == outcome:
            self.facts.append(_ENDS[outcome](of))

    async def _decide(self, of: JobRequested, outcome: RunOutcome) -> RunOutcome:
        async with self.workers[0].transaction() as connection:
            return await decide_outcome(connection, of.job_id, of.run, outcome)

    def _publish(self, batch: list[JobRequested], answers: Any, *, lost: bool) -> None:
        for of, answer in zip(batch, answers, strict=True):
            assert not isinstance(answer, InvalidEvent)
            for record in answer:
                event = parse_event(record.value)
                assert self.published.setdefault(event.id, record.value) == record.value, "the same fact, otherwise"
                if isinstance(event, JobAccepted) and not lost:
                    self.accepted[of.job_id, of.run] = of
                if isinstance(event, JobRejected) and not lost:
                    self.facts.append(event)

    @invariant()
    def books_are_right(self) -> None:
        """Counters equal the ledger's rows, quota is never overspent, and no row ever moves backwards."""
        self.wait(self._check())

    async def _check(self) -> None:
        rows = await self.connection.fetch("SELECT job_id, run, organization_id, state FROM quota_ledger")
        usage = await self.connection.fetch("SELECT organization_id, reserved, charged FROM quota_usage")
        for counter in usage:
            mine = [row["state"] for row in rows if row["organization_id"] == counter["organization_id"]]
            assert (mine.count("reserved"), mine.count("charged")) == (counter["reserved"], counter["charged"])
            assert counter["reserved"] + counter["charged"] <= _QUOTAS[counter["organization_id"]]
        for row in rows:
            before = self.states.get((row["job_id"], row["run"]))
            assert before in (None, "reserved", row["state"])
            self.states[row["job_id"], row["run"]] = row["state"]

    def teardown(self) -> None:
        """At rest, when everything was delivered and every run has ended: charged = completed, reserved = 0."""
        self.wait(self._rest())

    async def _rest(self) -> None:
        if self.requested:
            self._publish(self.requested, await self.admissions[0].admit(self.requested), lost=False)
        for of in self.requested:
            if await self._decide(of, "failed") == "failed":
                self.facts.append(failed(of))
        await self.settlements[0].settle(self.facts)
        await self._check()
        charged = {run for run, state in self.states.items() if state == "charged"}
        done = await self.connection.fetch("SELECT job_id, run FROM job_outcomes WHERE outcome = 'completed'")
        assert charged == {(row["job_id"], row["run"]) for row in done}
        assert "reserved" not in self.states.values()


def test_any_history_leaves_the_books_right(database_url: str) -> None:
    """Quota is neither overspent nor leaked by requests and settlements in any order, repeated, lost and at once."""
    with asyncio.Runner() as runner:
        workers = [Database(database_url, size=2) for _ in range(2)]
        connection = runner.run(asyncpg.connect(database_url))
        open_parts = {"runner": runner, "workers": workers, "connection": connection}
        try:
            run_state_machine_as_test(
                type("Machine", (LedgerMachine,), open_parts),
                settings=settings(
                    max_examples=50, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            runner.run(connection.close())
            for worker in workers:
                runner.run(worker.close())
