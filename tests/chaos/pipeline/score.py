"""What a row of the scoreboard says, for a terminal, for a script, and for `docs/reliability.md`."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel
from rich.table import Table


class Score(BaseModel):
    """One fault's row.

    Attributes:
        jobs: accepted: HTTP 202, or confirmed by the broker.
        refused: requests that got an error; their callers know.
        failed: ended as failed, with a reason that the customer reads. A failed job of ours is kept for replay.
        lost: accepted, and never begun when the time for draining was over.
        stuck: begun, and not ended then.
        duplicate_effects: results saved twice or in part.
        double_charges: units charged beyond one for each completed job.
        extra_calls: calls to the LLM beyond one for each job that ended.
        next_p50_s: seconds from an injection to the next completed job.
        affected_p50_s: seconds from an injection to the end of each job that was in flight.
        broken: what the check of all invariants found; None of it, or the fault left traces.
    """

    system: str
    fault: str
    title: str
    times: int
    jobs: int = 0
    refused: int = 0
    completed: int = 0
    failed: int = 0
    lost: int = 0
    stuck: int = 0
    duplicate_effects: int = 0
    double_charges: int = 0
    extra_calls: int = 0
    next_p50_s: float | None = None
    affected_p50_s: float | None = None
    affected_p99_s: float | None = None
    seconds: float = 0.0
    broken: Sequence[str] = ()
    skipped: str | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, stuck, doubled or inconsistent."""
        return not (self.lost or self.stuck or self.duplicate_effects or self.double_charges or self.broken)

    def cells(self) -> list[str]:
        """Return the row's cells, in the order of `COLUMNS`."""
        if self.skipped:
            return [self.title, f"skipped: {self.skipped}", *[""] * (len(COLUMNS) - 2)]
        numbers = (
            *(self.times, self.jobs, self.refused, self.completed, self.failed, self.lost, self.stuck),
            *(self.duplicate_effects, self.double_charges, self.extra_calls),
        )
        seconds = (self.next_p50_s, self.affected_p50_s, self.affected_p99_s)
        return [
            self.title,
            *[f"{number:,}" for number in numbers],
            *["–" if one is None else f"{one:.1f}" for one in seconds],
        ]


COLUMNS = (
    "fault",
    "times",
    "jobs",
    "refused",
    "completed",
    "failed",
    "lost",
    "stuck",
    "duplicate effects",
    "double charges",
    "extra LLM calls",
    "next job, p50 s",
    "affected, p50 s",
    "affected, p99 s",
)


def terminal_table(title: str, scores: Iterable[Score]) -> Table:
    """Return the rows as a table for a terminal; rows that are not clean are red."""
    table = Table(title=title)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number else "left")
    for score in scores:
        table.add_row(*score.cells(), style="dim" if score.skipped else "" if score.clean else "red")
    return table


def markdown_table(scores: Iterable[Score]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [" | ".join(COLUMNS), " | ".join(["---", *["---:"] * (len(COLUMNS) - 1)])]
    lines += [" | ".join(score.cells()) for score in scores]
    return "\n".join(f"| {line} |" for line in lines)
