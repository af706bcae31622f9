"""A report holds the findings of a check."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


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
