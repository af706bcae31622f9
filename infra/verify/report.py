"""A report holds the findings of a check, and is noted for the overview."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiosql
import asyncpg
import orjson

from infra.postgres import Session

_queries = aiosql.from_path(Path(__file__).with_name("report.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant and how it stands.

    Attributes:
        name: stable, for scripts.
        statement: what always holds.
        checked: how many things were looked at.
        violations: how many of them break it.
        examples: the first of those, each beginning with the ID.
        detail: the sum behind it, or nothing.
        next_step: what an operator does about violations.
    """

    name: str
    statement: str
    checked: int
    violations: int
    examples: Sequence[str]
    detail: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, of one moment."""

    at: datetime
    settled: bool
    findings: Sequence[Finding]

    @property
    def violated(self) -> Sequence[Finding]:
        """The findings with violations."""
        return [finding for finding in self.findings if finding.violations]

    @property
    def ok(self) -> bool:
        """Return true if every invariant holds."""
        return not self.violated

    def document(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "ok": self.ok,
            "at": self.at.isoformat(),
            "settled": self.settled,
            "invariants": [asdict(finding) for finding in self.findings],
        }

    def explain(self) -> str:
        """Return a paragraph with the IDs for each violated invariant. It is empty if there is none."""
        return "\n".join(
            f"{one.name}: {one.statement} - {one.violations} of {one.checked} do not"
            f"{f' ({one.detail})' if one.detail else ''}:\n"
            + "".join(f"    {example}\n" for example in one.examples)
            + (f"    … and {one.violations - len(one.examples)} more\n" if one.violations > len(one.examples) else "")
            for one in self.violated
        )


_KEPT: Final = timedelta(days=100)


async def note(connection: Session, report: Report) -> str | None:
    """Note what a check has found, without IDs; return why not, if it fails.

    A replica, or a role that may only read, takes no row: the check is none the worse for it.
    """
    violated = [{"name": one.name, "violations": one.violations, "next_step": one.next_step} for one in report.violated]
    try:
        async with connection.transaction():
            await _queries.forget_old(connection, keep=_KEPT)
            await _queries.note(
                connection,
                at=report.at,
                settled=report.settled,
                ok=report.ok,
                violated=orjson.dumps(violated).decode(),
            )
    except asyncpg.PostgresError as error:
        return str(error)
    return None
