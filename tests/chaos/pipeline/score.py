"""What a row of the scoreboard says, for a terminal, for a script, and for `docs/reliability.md`."""

import statistics
from collections import Counter
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
        events: ends of runs that the receiver of a row with webhooks was told of, each once or more.
        webhooks: requests that it got, those that it failed included.
        failures: how many jobs failed, by the code that the customer reads.
        next_s: seconds from each injection to the next completed job.
        affected_s: seconds from an injection to the end of each job that was in flight.
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
    events: int = 0
    webhooks: int = 0
    failures: dict[str, int] = {}
    next_s: list[float] = []
    affected_s: list[float] = []
    seconds: float = 0.0
    broken: list[str] = []
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
        seconds = (_quantile(self.next_s, 50), _quantile(self.affected_s, 50), _quantile(self.affected_s, 99))
        return [self.title, *[f"{number:,}" for number in numbers], *seconds]


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


_SUMS = (
    *("times", "jobs", "refused", "completed", "failed", "lost", "stuck", "duplicate_effects", "double_charges"),
    *("extra_calls", "events", "webhooks", "next_s", "affected_s", "broken"),
)


def together(parts: Sequence[Score]) -> Score:
    """Return one row for a fault whose injections several fleets shared."""
    whole = parts[0].model_copy(deep=True)
    for part in parts[1:]:
        for name in _SUMS:
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        whole.failures = dict(Counter(whole.failures) + Counter(part.failures))
        whole.seconds = max(whole.seconds, part.seconds)
    return whole


def reasons(scores: Iterable[Score]) -> str:
    """Say why jobs failed, row by row; nothing if none did."""
    rows = [
        f"{score.title}: {', '.join(f'{number} × `{code}`' for code, number in sorted(score.failures.items()))}"
        for score in scores
        if score.failures
    ]
    return f"Why jobs failed. {'; '.join(rows)}." if rows else ""


def told(scores: Iterable[Score]) -> str:
    """Say what receivers of webhooks got, row by row; nothing if no row has one."""
    rows = [
        f"{score.title}: {score.events:,} events in {score.webhooks:,} requests" for score in scores if score.webhooks
    ]
    return f"Webhooks. {'; '.join(rows)}." if rows else ""


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


def _quantile(seconds: Sequence[float], percent: int) -> str:
    if len(seconds) < 2:
        return f"{seconds[0]:.1f}" if seconds else "–"
    return f"{statistics.quantiles(seconds, n=100, method='inclusive')[percent - 1]:.1f}"
