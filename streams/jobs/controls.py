"""Controls are what operators want of the running fleet. They stand in Postgres, so restarts keep them.

`infra/operations/controls.py` sets them; each process looks at them every second, and at once when it is told to (see
`watch`). One that has expired is not there any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import aiosql

from infra.postgres import Connection, Session
from streams.delivery.brake import Orders

_queries = aiosql.from_path(Path(__file__).with_name("controls.sql"), "asyncpg")

CHANNEL: Final = "teamfit_controls"

ControlKind: TypeAlias = Literal["pause", "concurrency", "intake", "drain", "log_level", "gate"]


@dataclass(frozen=True, slots=True)
class Control:
    """An operator wants this of the fleet.

    Attributes:
        kind: what it is about.
        subject: the stage, the process, or the endpoint; empty: the intake.
        organization_id: whose runs it is about; empty: all.
        value: the number, or the log level.
        reason: why, for people.
        set_by: by whom; empty: the fleet itself has closed a gate.
        set_at: since when.
        expires_at: until when; None: until somebody ends it.
        ends_in_s: the same, in seconds from now.
    """

    kind: ControlKind
    subject: str
    organization_id: str
    value: str | None
    reason: str
    set_by: str
    set_at: datetime
    expires_at: datetime | None
    ends_in_s: float | None

    @property
    def sentence(self) -> str:
        """Return who wants it, why, and until when."""
        until = "" if self.expires_at is None else f" (until {self.expires_at:%Y-%m-%d %H:%M:%S} UTC)"
        return f"{self.set_by}: {self.reason}{until}"


class Controls:
    """All controls that are in force at a moment."""

    def __init__(self, in_force: Sequence[Control] = ()) -> None:
        self.all = in_force

    def find(self, kind: ControlKind, subject: str = "") -> Control | None:
        """Return the control of a kind about a subject that concerns all organizations."""
        found = (one for one in self.all if one.kind == kind and one.subject == subject and not one.organization_id)
        return next(found, None)

    def orders(self, stage: str) -> Orders:
        """Return what is wanted of a stage."""
        paused, limit = self.find("pause", stage), self.find("concurrency", stage)
        return Orders(
            paused=None if paused is None else paused.sentence,
            limit=None if limit is None or limit.value is None else int(limit.value),
            organizations={
                one.organization_id: one.ends_in_s
                for one in self.all
                if one.kind == "pause" and one.subject == stage and one.organization_id
            },
        )


async def read_controls(connection: "Connection | Session") -> Controls:
    """Return what is in force now, in one small statement."""
    return Controls([Control(**row) async for row in _queries.in_force(connection)])
