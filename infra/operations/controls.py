"""Operators control the running fleet: what is wanted, its effects, and its end.

What is wanted stands in Postgres and is obeyed by every process within two seconds, restarts included (see
`streams.jobs.watch`). A process that dies anywhere changes nothing about that: the row commits with its line in the log
of actions, and a lost notification is made up for by the next look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiosql

from consumers.generation import gate
from infra.actions import Act, acting, current_actor
from infra.errors import TeamfitError
from infra.postgres import Connection, Database
from infra.texts import storable
from streams.delivery.brake import put_aside_as
from streams.delivery.scheduled import hasten
from streams.jobs.controls import CHANNEL, Control, ControlKind, Controls, read_controls
from streams.jobs.stages import RUN_TOPICS, STAGES

_queries = aiosql.from_path(Path(__file__).with_name("controls.sql"), "asyncpg")

PAUSABLE: Final = tuple(stage.name for stage in STAGES if stage.reads)
"""The stages that can be paused. The schedule cannot: it feeds all others, which can."""
BY_ORGANIZATION: Final = tuple(RUN_TOPICS)
"""Those that can be paused for one organization: what brings a run to them waits, its facts go on."""
LEVELS: Final = ("debug", "info", "warning", "error")
SILENT_S: Final = 15.0
"""A process that gave no sign of life for so long is gone."""
_GATE_LASTS: Final = timedelta(hours=1)
_LONGEST: Final = timedelta(days=366)
_LONGEST_REASON: Final = 500
_MOST_AT_ONCE: Final = 10_000


class InvalidControl(TeamfitError):
    """A control cannot be set so. The message names the field and the fix."""


class UnknownSubject(TeamfitError):
    """There is no such process, endpoint or organization, or nothing is wanted of it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """An operator wants something of the fleet.

    Attributes:
        kind: what it is about.
        subject: the stage, the process (its ID, or how it begins), or the endpoint; empty: the intake.
        organization_id: whose runs alone are paused.
        value: the number, or the log level.
        reason: why.
        lasts: until when, from now; None: until it is ended.
    """

    kind: ControlKind
    subject: str = ""
    organization_id: str | None = None
    value: str | None = None
    reason: str = ""
    lasts: timedelta | None = None

    @property
    def target(self) -> str:
        """Return what it is about, in words."""
        if self.kind == "intake":
            return "intake"
        noun = {"drain": "process", "log_level": "process", "gate": "endpoint"}.get(self.kind, "stage")
        whose = f" for organization {self.organization_id}" if self.organization_id else ""
        return f"{noun} {self.subject}{whose}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the fleet, as it has last told.

    Attributes:
        silent_s: seconds since then.
        doing: for each of its stages, what is under way, how much at once, and why it is paused or held.
    """

    process: str
    kind: str
    host: str
    pid: int
    version: str
    stages: Sequence[str]
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    rss_bytes: int
    log_level: str
    doing: Sequence[Mapping[str, Any]]
    silent_s: float

    @property
    def state(self) -> str:
        """Return `alive`, `gone` (without a word), or `ended` (in good order)."""
        if self.ended_at is not None:
            return "ended"
        return "alive" if self.silent_s < SILENT_S else "gone"


async def processes(database: Database) -> Sequence[Process]:
    """Return the processes of the fleet; those that are gone for an hour. Raises DependencyDown."""
    async with database.transaction() as connection:
        return await _processes(connection)


async def controls(database: Database) -> Sequence[Control]:
    """Return what is in force, the closed gates of endpoints included. Raises DependencyDown."""
    async with database.transaction() as connection:
        return (await read_controls(connection)).all


async def effects_of(database: Database, wish: Wish) -> Mapping[str, Any]:
    """Say what would follow; nothing is done.

    Raises:
        InvalidControl: it cannot be wanted so.
        UnknownSubject: it is about something that is not there.
    """
    async with database.transaction() as connection:
        return await _effects(connection, await _checked(connection, wish))


async def set_control(database: Database, wish: Wish) -> Mapping[str, Any]:
    """Want something of the fleet; return what follows. A repeat replaces the reason and the end.

    Raises:
        InvalidControl: it cannot be wanted so.
        UnknownSubject: it is about something that is not there.
        DependencyDown: Postgres is away; whether it is in force is unknown, so ask or repeat.
    """
    act = Act(f"control.{wish.kind}", wish.target, wish.reason)
    async with acting(database, act) as connection:
        checked = await _checked(connection, wish)
        act.target = checked.target
        act.effects = dict(await _effects(connection, checked))
        by, reason = current_actor().name, storable(checked.reason, _LONGEST_REASON)
        if checked.kind == "gate":
            closed_for = checked.lasts or _GATE_LASTS
            await gate.close_gate(connection, checked.subject, closed_for, f"{by}: {reason}")
        else:
            await _queries.set(
                connection,
                kind=checked.kind,
                subject=checked.subject,
                organization_id=checked.organization_id or "",
                value=checked.value,
                reason=reason,
                set_by=by,
                lasts=checked.lasts,
            )
            await _queries.forget_expired(connection)
        await _queries.tell(connection, channel=CHANNEL)
    return act.effects


async def unset_control(database: Database, wish: Wish) -> Mapping[str, Any]:
    """End what is wanted; return what that was, and what goes on.

    Raises:
        UnknownSubject: nothing of the kind is wanted.
    """
    act = Act(f"control.{wish.kind}.end", wish.target, wish.reason or None)
    async with acting(database, act) as connection:
        subject = await _resolved(connection, wish.subject) if wish.kind in _OF_PROCESSES else wish.subject
        if wish.kind == "gate":
            if not await gate.open_gates(connection, [subject]):
                raise UnknownSubject(f"endpoint {subject}: its gate is open; `teamfit llm gate show` has all")
        else:
            ended = await _queries.unset(
                connection, kind=wish.kind, subject=subject, organization_id=wish.organization_id or ""
            )
            if ended is None or not ended["was_in_force"]:
                raise UnknownSubject(f"{wish.target}: no {wish.kind} is in force; `teamfit workers` shows what is")
            act.effects = {"was": ended["reason"], "set_by": ended["set_by"], "set_at": str(ended["set_at"])}
        if wish.kind == "pause" and wish.organization_id:
            why = put_aside_as(subject, wish.organization_id)
            act.effects["runs_due_now"] = await hasten(connection, reason=why, now=database.clock.now())
        act.effects |= {"still_paused_for": await _others(connection, wish)} if wish.kind == "pause" else {}
        await _queries.tell(connection, channel=CHANNEL)
    return act.effects


_OF_PROCESSES: Final = ("drain", "log_level")


async def _checked(connection: Connection, wish: Wish) -> Wish:
    """Return what is wanted, with its process named in full."""
    if not wish.reason.strip() or len(wish.reason) > _LONGEST_REASON:
        raise InvalidControl(f"reason: say why, in at most {_LONGEST_REASON} characters; others will read it")
    if wish.lasts is not None and not timedelta(0) < wish.lasts <= _LONGEST:
        raise InvalidControl("for: give a time from a second to 366 days, such as 30m or 2h")
    if wish.organization_id is not None and (wish.kind != "pause" or wish.subject not in BY_ORGANIZATION):
        known = " and ".join(BY_ORGANIZATION)
        raise InvalidControl(f"organization: {known} can be paused for one organization, nothing else can")
    if wish.kind in ("pause", "concurrency") and wish.subject not in PAUSABLE:
        raise InvalidControl(f"stage: there is no {wish.subject!r} to control; there are {', '.join(PAUSABLE)}")
    if wish.organization_id is not None and not await _queries.knows_organization(
        connection, organization_id=wish.organization_id
    ):
        raise UnknownSubject(f"organization {wish.organization_id}: not known; check the ID")
    if wish.kind == "gate" and not await _queries.knows_endpoint(connection, endpoint=wish.subject):
        raise UnknownSubject(f"endpoint {wish.subject}: no worker calls it; `teamfit workers --json` has those of each")
    _check_value(wish)
    if wish.kind in _OF_PROCESSES:
        return replace(wish, subject=await _resolved(connection, wish.subject, alive=True, worker=wish.kind == "drain"))
    return wish


def _check_value(wish: Wish) -> None:
    if wish.kind == "concurrency":
        value = wish.value or ""
        if not (value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= _MOST_AT_ONCE and len(value) < 9):  # noqa: PLR2004
            raise InvalidControl(f"concurrency: give a number from 1 to {_MOST_AT_ONCE}; to stop a stage, pause it")
    elif wish.kind == "log_level":
        if wish.value not in LEVELS:
            raise InvalidControl(f"level: there is no {wish.value!r}; there are {', '.join(LEVELS)}")
    elif wish.value is not None:
        raise InvalidControl(f"value: a {wish.kind} has none; leave it out")


async def _resolved(connection: Connection, start: str, *, alive: bool = False, worker: bool = False) -> str:
    """Return the process whose ID begins so."""
    known = [one for one in await _processes(connection) if start and one.process.startswith(start)]
    found = [one for one in known if one.state == "alive"] if alive else known
    if len(found) != 1:
        what = "is not one of those that live" if not found else f"fits {len(found)} of them"
        raise UnknownSubject(f"process {start}: {what}; `teamfit workers` lists them")
    if worker and found[0].kind != "worker":
        raise InvalidControl(f"process: {start} is no worker; stop it where it was started")
    return found[0].process


async def _processes(connection: Connection) -> list[Process]:
    return [Process(**{**row, "process": str(row["process"])}) async for row in _queries.processes(connection)]


async def _effects(connection: Connection, wish: Wish) -> dict[str, Any]:
    living = [one for one in await _processes(connection) if one.state == "alive"]
    until = {"lasts": str(wish.lasts)} if wish.lasts else {"lasts": "until it is ended"}
    mine = [one for one in living if wish.subject in one.stages]
    now = Controls((await read_controls(connection)).all)
    match wish.kind:
        case "pause":
            runs = await _queries.waiting(connection, organization_id=wish.organization_id)
            under_way = sum(
                int(stage["under_way"]) for one in mine for stage in one.doing if stage["stage"] == wish.subject
            )
            return {"workers": len(mine), "under_way_go_on": under_way, "runs_in_line": runs["in_line"],
                    "runs_released": runs["released"], **until}  # fmt: skip
        case "concurrency":
            return {"workers": len(mine), **_concurrency(mine, wish), **until}
        case "intake":
            return {"api_processes": sum(one.kind == "api" for one in living), "answers": "503 intake_stopped", **until}
        case "drain":
            (one,) = [one for one in living if one.process == wish.subject]
            others = {stage: sum(stage in other.stages for other in living) - 1 for stage in one.stages}
            return {"host": one.host, "pid": one.pid, "others_of_its_stages": others}
        case "log_level":
            before = now.find("log_level", wish.subject)
            return {"level": wish.value, "before": before and before.value, **until}
        case "gate":
            return {
                "closed_for": str(wish.lasts or _GATE_LASTS),
                "workers": sum(any(wish.subject in stage["endpoints"] for stage in one.doing) for one in living),
            }


def _concurrency(workers: Sequence[Process], wish: Wish) -> dict[str, Any]:
    """Say how much each worker does at once, and will: at most what it was started with."""
    stages = [stage for one in workers for stage in one.doing if stage["stage"] == wish.subject]
    wanted = int(wish.value or 0)
    # A worker of an earlier version does not tell what it was started with.
    then = [min(wanted, stage.get("started_with", wanted)) for stage in stages]
    effects: dict[str, Any] = {"now": [stage["concurrency"] for stage in stages], "then": then}
    if any(each < wanted for each in then):
        effects["limited_by"] = "what a worker was started with; for more, start it with a higher setting"
    return effects


async def _others(connection: Connection, wish: Wish) -> list[str]:
    """Return for whom a stage stays paused."""
    return [
        one.organization_id or "all"
        for one in (await read_controls(connection)).all
        if one.kind == "pause" and one.subject == wish.subject
    ]


def plain(control: Control) -> dict[str, Any]:
    """Return a control for programs."""
    return {**asdict(control), "organization_id": control.organization_id or None}
