"""The stage records every attempt at a run. A token decides whose result counts.

started ──▶ saved        its activities are in `customized_activities`, and the run is completed
        ├─▶ failed       the call gave nothing, or the run had ended before the answer came
        └─▶ abandoned    a newer attempt took the run over; maybe billed, and its late answer changes nothing

Who may take a run over? An attempt remembers which entry of the broker it was begun for, and until when it may last.
- The same entry again: the broker hands it over again only when its worker has lost it. That worker died or is stalled,
  which look alike from outside, so the run is taken over at once, with a new token.
- Another entry of the same run (its sender died between publishing and acknowledging, or it was sent on as standing
  still): the worker that has the first one most likely lives and is about to pay, so this one waits. The entry that it
  waits for comes again by itself if its worker dies. When the attempt's time is over, anybody may take the run.

Only an attempt that is still `started` may save. Taking over and saving both happen under the lock of the attempt's
row, so they cannot both succeed.

An attempt that has made no call is discarded: each row that has ended stands for one call, made or perhaps made. What
they cost is added up by organization in `llm_usage`, by a trigger, in the transaction that records it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiosql

from consumers.generation.answer import Completion
from consumers.generation.gate import Closing, Gate
from consumers.generation.hold import Hold
from consumers.generation.prompt import BYTES_PER_TOKEN, Material, Team, most_prompt_tokens
from consumers.generation.runs import (
    Attempt,
    Begun,
    Capped,
    Ended,
    Failure,
    Handover,
    NotItsTurn,
    Run,
    Saved,
    Unaffordable,
    UnderWay,
    attempt_time,
)
from infra.clock import Clock
from infra.postgres import Connection, Database, columns
from infra.settings import Settings
from streams.jobs.admission import period_of
from streams.jobs.completion import Usage
from streams.jobs.dispatch import note_paced
from streams.jobs.events import JobAccepted, JobId
from streams.jobs.outcomes import complete_runs

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts at one endpoint in Postgres. Every method is one transaction for a batch, and is safe to repeat.

    Each raises DependencyDown when Postgres is away.
    """

    database: Database
    clock: Clock
    settings: Settings
    gate: Gate
    hold: Hold = field(default_factory=Hold)
    endpoint: str | None = None

    async def begin(self, handovers: Sequence[Handover]) -> list[Begun]:
        """Begin an attempt at each run and read its team.

        A run that ended, is under way, or is at its job's cap gets none.

        Two entries of one run in the same batch are begun one after the other: the second finds the first under way.

        Raises:
            DependencyDown: also when the gate is closed or the endpoint held; then nothing is changed.
            ProbeDue: the endpoint is held, and it is time to ask.
        """
        begun: list[Begun | None] = [None] * len(handovers)
        async with self.database.transaction() as connection:
            teams = await self._teams(connection, {event.data.team_id for event, _ in handovers})
            while missing := [place for place, one in enumerate(begun) if one is None]:
                # One place for each run: the statement cannot begin the same run twice.
                places = {_run_of(handovers[place]): place for place in reversed(missing)}
                once = await self._begin_once(connection, [handovers[place] for place in places.values()], teams)
                for key, one in once.items():
                    place = places[key]
                    begun[place] = _with_team(one, handovers[place][0], teams)
        return [one for one in begun if one is not None]

    async def _begin_once(
        self, connection: Connection, handovers: Sequence[Handover], teams: Mapping[str, Team]
    ) -> dict[Run, Begun]:
        events, entries = [event for event, _ in handovers], [entry for _, entry in handovers]
        runs = columns(events, job_ids="job_id", runs="run")
        owners = [event.data.organization_id for event in events]
        now = self.clock.now()
        caller = self.hold.caller
        closings = {"gate": self.gate.endpoint, "caller_endpoint": caller.endpoint}
        closings |= {"model": caller.model, "credential": caller.credential}
        # Three statements: each sees what another worker's begin or save, for which the one before it had to wait, did.
        known = await _queries.lock_runs(connection, **runs, organization_ids=sorted(set(owners)), **closings)
        self.gate.learn(known["closed_for"])
        self.gate.check()
        self.hold.learn(known["sentence"], known["next_probe_in"], known["blame"])
        self.hold.check()
        await _queries.abandon(connection, **runs, entries=entries, attempt_time=attempt_time(self.settings), now=now)
        tokens = {(event.job_id, event.run): uuid4() for event in events}
        begun: dict[Run, Begun] = {}
        async for row in _queries.begin(
            connection,
            **runs,
            organization_ids=owners,
            tokens=list(tokens.values()),
            entries=entries,
            attempt_time=attempt_time(self.settings),
            max_tokens=self.settings.max_tokens_per_job,
            unknown_tokens=self.settings.max_completion_tokens,
            prompt_tokens=[self._most_prompt(event, teams) for event in events],
            asked_model=self.settings.model,
            period=period_of(now),
            endpoint=self.endpoint,
            now=now,
            **closings,
        ):
            key = (JobId(row["job_id"]), row["run"])
            begun[key] = _begun(row, key, tokens[key])
        return begun

    def _most_prompt(self, event: JobAccepted, teams: Mapping[str, Team]) -> int:
        team = teams.get(event.data.team_id)
        return most_prompt_tokens(event.data.requirements, team, self.settings.materials_token_budget)

    async def _teams(self, connection: Connection, team_ids: set[str]) -> dict[str, Team]:
        rows = _queries.teams(
            connection, team_ids=sorted(team_ids), max_bytes=self.settings.materials_token_budget * BYTES_PER_TOKEN
        )
        return {
            row["id"]: Team(
                team_id=row["id"],
                organization_id=row["organization_id"],
                name=row["name"],
                size=row["size"],
                description=row["description"],
                materials=[Material(*material) for material in row["materials"]],
            )
            async for row in rows
        }

    async def save(self, answers: Sequence[tuple[Attempt, Completion]]) -> list[Saved | None]:
        """Save activities and complete the runs of attempts that still hold their run.

        Returns:
            None for an attempt that does not: nothing but its own cost was recorded.
        """
        now = self.clock.now()
        saved_at: dict[UUID, datetime] = {}
        async with self.database.transaction() as connection:
            attempts = [attempt for attempt, _ in answers]
            cost = _cost([completion.usage for _, completion in answers])
            unknown = [completion.usage.maybe_billed for _, completion in answers]
            async for row in _queries.answered(
                connection, now=now, maybe_billed=unknown, **_identity(attempts), **cost
            ):
                if row["state"] == "saved":
                    saved_at[row["token"]] = row["finished_at"]
            holding = [one for one in attempts if one.token in saved_at]
            completed = await complete_runs(connection, [one.key for one in holding])
            late = [one for one in holding if one.key not in completed]
            if late:
                await _queries.too_late(connection, **_identity(late))
            held = {one.token for one in holding} - {one.token for one in late}
            await _save_activities(connection, [answer for answer in answers if answer[0].token in held])
            closing = await self._tell(connection)
        self.gate.told(closing)
        return [
            Saved(completion.usage, saved_at[attempt.token]) if attempt.token in held else None
            for attempt, completion in answers
        ]

    async def fail(self, failures: Sequence[Failure]) -> list[None]:
        """Record how attempts failed. One that no longer holds its run only has its cost recorded."""
        async with self.database.transaction() as connection:
            await _queries.fail(
                connection,
                now=self.clock.now(),
                **columns(failures, error_codes="code", maybe_billed="maybe_billed"),
                **_identity([failure.attempt for failure in failures]),
                **_cost([failure.usage for failure in failures]),
            )
            closing = await self._tell(connection)
        self.gate.told(closing)
        return [None] * len(failures)

    async def discard(self, attempts: Sequence[Attempt]) -> list[None]:
        """Forget attempts that have made no call."""
        async with self.database.transaction() as connection:
            await _queries.discard(connection, **_identity(attempts))
        return [None] * len(attempts)

    async def note_paced(self, runs: Sequence[tuple[JobId, int, timedelta]]) -> list[None]:
        """Note that runs wait until the endpoint's limits have room; they have no attempt yet."""
        async with self.database.transaction() as connection:
            await note_paced(connection, runs)
        return [None] * len(runs)

    async def _tell(self, connection: Connection) -> Closing | None:
        """Let the fleet know that the gate is closed, if it does not yet; to be noted when the transaction commits."""
        closing = self.gate.untold()
        if closing is not None:
            await _queries.close_gate(connection, endpoint=self.gate.endpoint, wait=closing.wait, reason=closing.reason)
        return closing

    async def give_up(self, job_id: JobId, run: int, *, error_code: str) -> None:
        """End the unfinished attempts of a run that the stage gives up. None can save any more."""
        async with self.database.transaction() as connection:
            await _queries.give_up(connection, job_id=job_id, run=run, error_code=error_code, now=self.clock.now())


def _begun(row: Mapping[str, Any], key: Run, token: UUID) -> Begun:
    if row["attempt"] is not None:
        return Attempt(*key, row["attempt"], token)
    if row["outcome"] == "completed" and row["finished_at"] is not None:
        usage = Usage(row["model"] or "", row["prompt_tokens"], row["completion_tokens"])
        return Saved(usage, row["finished_at"])
    if row["outcome"] is not None:
        return Ended(row["outcome"], row["error_code"])
    if row["waits"]:
        return NotItsTurn()
    if row["wait"] is not None:
        return UnderWay(row["wait"])
    if row["verdict"] is not None:
        return Unaffordable(row["verdict"], row["budget"], row["money_spent"])
    return Capped(row["spent"])


def _with_team(begun: Begun, event: JobAccepted, teams: Mapping[str, Team]) -> Begun:
    if not isinstance(begun, Attempt):
        return begun
    team = teams.get(event.data.team_id)
    # A team of another organization is as good as none: its materials are for its own jobs alone.
    return replace(begun, team=team) if team and team.organization_id == event.data.organization_id else begun


def _identity(attempts: Sequence[Attempt]) -> Mapping[str, Sequence[object]]:
    # By primary key as well as by token, which has no index of its own.
    return columns(attempts, job_ids="job_id", runs="run", attempts="number", tokens="token")


def _cost(usages: Sequence[Usage | None]) -> dict[str, Sequence[object]]:
    return {
        "models": [usage and usage.model for usage in usages],
        "prompt_tokens": [usage and usage.prompt_tokens for usage in usages],
        "completion_tokens": [usage and usage.completion_tokens for usage in usages],
    }


async def _save_activities(connection: Connection, answers: Sequence[tuple[Attempt, Completion]]) -> None:
    if not answers:
        return
    await _queries.save_activities(
        connection,
        job_ids=[attempt.job_id for attempt, _ in answers],
        runs=[attempt.run for attempt, _ in answers],
        activities=[completion.activities.encode() for _, completion in answers],
        **_cost([completion.usage for _, completion in answers]),
    )


def _run_of(handover: Handover) -> Run:
    event, _ = handover
    return event.job_id, event.run
