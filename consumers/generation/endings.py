"""This module maps the many spellings of a finish reason to one meaning."""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Any, Final


class Ending(Enum):
    """A finish reason says this about the answer."""

    WHOLE = auto()
    TRUNCATED = auto()
    FILTERED = auto()
    REFUSED = auto()
    MALFORMED = auto()
    """The model produced what the server could not use."""
    BROKEN_OFF = auto()
    """The server failed or gave up."""


# Servers write them in capitals, with hyphens, and behind a prefix (FINISH_REASON_MAX_TOKENS).
_PREFIXES: Final = ("finish_reason_", "stop_reason_", "finishreason.")
_GOOD: Final = frozenset({"stop", "stopped", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "completed"})
_EXACT: Final = {
    "limit": Ending.TRUNCATED,
    "rate_limit": Ending.BROKEN_OFF,
    "language": Ending.FILTERED,
    "other": Ending.MALFORMED,
    "unspecified": Ending.MALFORMED,
    "invalid": Ending.MALFORMED,
}
_PARTS: Final = {
    Ending.FILTERED: "filter safety recitation prohibited blocklist blocked spii sensitive moderation flagged "
    "guardrail toxic model_armor jailbreak risk violat unsafe harmful policy",
    Ending.REFUSED: "refus",
    Ending.TRUNCATED: "length max_token maxtoken max_output maxoutput max_completion max_new token_limit tokens_limit "
    "limit_reached context_window context_limit truncat incomplete cut_off cutoff "
    "out_of_token",
    Ending.MALFORMED: "malformed unexpected_tool too_many_tool missing_thought no_image repetition",
    Ending.BROKEN_OFF: "error fail abort cancel timeout timed_out overload unavailable insufficient interrupt "
    "exception time_limit not_finished",
}
_KNOWN: Final = [(part, ending) for ending, parts in _PARTS.items() for part in parts.split()]
_WORD_CHARS: Final = 40


def ending_of(choice: Mapping[str, Any], message: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[Ending, str]:
    """Return how the answer ended, and the word that says so.

    The first reason that says it did not end well decides, the choice's own one first: gateways write `stop` beside
    what the model's server has said. An answer without a known reason is whole if its JSON is.
    """
    details = document.get("incomplete_details")
    stated = (
        choice.get("finish_reason"),
        choice.get("finish_details"),
        choice.get("stop_reason"),
        choice.get("native_finish_reason"),
        message.get("finish_reason"),
        message.get("stop_reason"),
        details.get("reason") if isinstance(details, dict) else None,
        document.get("stop_reason"),
        document.get("status"),
    )
    for reason in _words(stated):
        if reason in _GOOD:
            continue
        ending = _EXACT.get(reason) or next((known for part, known in _KNOWN if part in reason), None)
        if ending is not None:
            return ending, reason[:_WORD_CHARS]
    for category in _filtered((choice, message, document)):
        return Ending.FILTERED, category[:_WORD_CHARS]
    return Ending.WHOLE, ""


def _filtered(parts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the categories by which a filter says, beside the answer, that it has stopped the prompt or the answer."""
    for part in parts:
        prompts = part.get("prompt_filter_results")
        for one in (part, *(prompts if isinstance(prompts, list) else [])):
            if isinstance(one, dict) and one.get("amazon-bedrock-guardrailAction") == "INTERVENED":
                yield "guardrail"
            results = one.get("content_filter_results") if isinstance(one, dict) else None
            for category, result in results.items() if isinstance(results, dict) else ():
                if isinstance(result, dict) and result.get("filtered") is True:
                    yield str(category)


def _words(stated: Iterable[object]) -> Iterable[str]:
    for one in stated:
        reason = one.get("type") or one.get("reason") if isinstance(one, dict) else one
        if isinstance(reason, str) and reason.strip():
            word = reason.strip().lower().replace("-", "_").replace(" ", "_")
            for prefix in _PREFIXES:
                word = word.removeprefix(prefix)
            yield word
