"""What an answer says that it cost. What it does not say, or cannot mean, is unknown: never zero, never a guess."""

from collections.abc import Mapping
from typing import Any, Final

from infra import telemetry
from streams.jobs.completion import Usage, token_count

_PROMPT: Final = ("prompt_tokens", "input_tokens")
_COMPLETION: Final = ("completion_tokens", "output_tokens")


def usage_of(stated: object, *, model: str, answered: bool) -> Usage:
    """Return the cost that an answer states.

    The total counts where it holds more than the two others, as reasoning that some servers leave out of both, and
    where one of them is missing. A total alone is recorded as tokens of the answer, which are the dearer ones.

    Args:
        stated: the `usage` of the answer, of any type.
        answered: whether the answer holds a text, which costs at least one token.
    """
    counts: Mapping[str, Any] = stated if isinstance(stated, dict) else {}
    # No prompt is empty: a zero means that nobody counted.
    prompt = _count(counts, _PROMPT) or None
    completion = _count(counts, _COMPLETION)
    if completion == 0 and answered:
        completion = None
    total = token_count(counts.get("total_tokens")) or None
    if total is None:
        return Usage(model, prompt, completion, maybe_billed=prompt is None)
    # A count that is there and wrong makes the total doubtful too.
    if prompt is None and completion is None and _silent(counts, _PROMPT) and _silent(counts, _COMPLETION):
        return Usage(model, None, total)
    if prompt is None and completion is not None and _silent(counts, _PROMPT) and total > completion:
        prompt = total - completion
    more = prompt is not None and total > prompt + (completion or 0)
    if prompt is not None and more and (completion is not None or _silent(counts, _COMPLETION)):
        completion = total - prompt
    return Usage(model, prompt, completion, maybe_billed=prompt is None)


def _count(counts: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := token_count(counts.get(name))) is not None), None)


def _silent(counts: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return not any(counts.get(name) for name in names)


def count(usage: Usage) -> None:
    """Add a call to the metrics."""
    telemetry.LLM_TOKENS.labels("prompt").inc(usage.prompt_tokens or 0)
    telemetry.LLM_TOKENS.labels("completion").inc(usage.completion_tokens or 0)
    if usage.maybe_billed:
        telemetry.LLM_USAGE_UNKNOWN.inc()
