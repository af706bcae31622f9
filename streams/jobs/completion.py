"""This module builds the fact about a completed run. One constructor makes what goes into Postgres and into the event.

A count of tokens is known or unknown. Whatever an endpoint sends becomes one of the two here, so that nothing is saved
that cannot be published, and the same holds for what an earlier version has saved.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from streams.delivery.traces import Trace
from streams.jobs.events import Completed, JobCompleted, JobId
from streams.jobs.facts import fact

# As long as the longest context window on offer. A higher count is an error of whoever counted, and no sum overflows.
MOST_TOKENS: Final = 10_000_000
_MODEL_CHARS: Final = 200


def token_count(stated: object) -> int | None:
    """Return a count of tokens, or None if this is none that can be believed."""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated <= MOST_TOKENS:
        return None
    # Some languages know no other number than 10.0.
    return int(stated) if stated == int(stated) else None


@dataclass(frozen=True, slots=True)
class Usage:
    """One call has this cost, as far as it is known.

    Attributes:
        model: as the endpoint names it, printable and of bounded length.
        prompt_tokens: None is unknown.
        completion_tokens: None is unknown.
        maybe_billed: whether there may be tokens that are in neither count.
    """

    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    maybe_billed: bool = False

    def __post_init__(self) -> None:
        """Turn what cannot be kept or told into what can."""
        model = self.model if self.model.isprintable() else "".join(filter(str.isprintable, self.model))
        prompt, completion = token_count(self.prompt_tokens), token_count(self.completion_tokens)
        object.__setattr__(self, "model", model[:_MODEL_CHARS])
        object.__setattr__(self, "prompt_tokens", prompt)
        object.__setattr__(self, "completion_tokens", completion)
        object.__setattr__(self, "maybe_billed", self.maybe_billed or completion is None)


def job_completed(
    job_id: JobId, run: int, *, organization_id: str, usage: Usage, at: datetime, trace: Trace
) -> JobCompleted:
    """Build the fact from saved data alone, so that a repeat gives the same bytes."""
    data = Completed(
        organization_id=organization_id,
        model=usage.model,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )
    return fact(JobCompleted, job_id, run, data, at=at, trace=trace)
