"""A completion's choice holds activities, an ending, a refusal, or a fault.

Finish reasons have many spellings; each has one meaning here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError

from consumers.generation.activities import Activities
from consumers.generation.declining import declines
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.message import refusal_in, sources
from consumers.generation.no_completion import NoCompletion, reported, reports
from consumers.generation.packing import Found, unpacked_each, without_null_lists
from infra.errors import Permanent, Transient
from streams.jobs.completion import Usage


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


Json = Mapping[str, Any]

_ENDED: Final = {
    Ending.TRUNCATED: "the answer was cut off at its limit (TEAMFIT_MAX_COMPLETION_TOKENS)",
    Ending.FILTERED: "the LLM's content filter stopped the answer",
    Ending.REFUSED: "the LLM refused to answer this request",
    Ending.MALFORMED: "the endpoint says that the answer is malformed",
    Ending.BROKEN_OFF: "the endpoint says that it broke the answer off",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers that a completion holds; mostly there is one."""

    fields: Json
    message: Json

    @property
    def says_something(self) -> bool:
        """Return whether the choice holds a text or a value, in any place."""
        return next(sources(self.fields, self.message), None) is not None

    @property
    def holds_json(self) -> bool:
        """Return whether a JSON object stands in it, or begins to."""
        return any("{" in str(source.held) for source in sources(self.fields, self.message))


def activities_of(choice: Choice, document: Json, usage: Usage) -> tuple[Activities, set[str]]:
    """Return the activities of a choice, and how they were packed.

    Raises:
        LlmFailure: there are none; it holds what the answer cost.
        NoCompletion: the server broke the answer off.
    """
    for part in (choice.fields, choice.message):
        if reports(part):
            raise reported(part, usage)
    _check_ending(*ending_of(choice.fields, choice.message, document), usage)
    if refusal_in(choice.message):
        raise LlmFailure(Permanent("llm_refusal", _ENDED[Ending.REFUSED]), usage=usage)
    content = choice.message.get("content")
    if isinstance(content, str):
        try:
            return Activities.model_validate_json(content), set()
        except ValidationError:
            pass  # packed, or invalid
    found = _found(choice)
    if declines(_instead(found)):
        raise LlmFailure(Permanent("llm_refusal", f"{_ENDED[Ending.REFUSED]}, in prose"), usage=usage)
    return _valid(found, usage), found.kinds


def _instead(found: Found) -> str:
    """Return what is said in place of activities: around them, or in an object beside an empty list."""
    if found.value is None:
        return found.instead
    beside = [part for part in found.value.values() if isinstance(part, str)]
    return "" if found.value["activities"] else " ".join(beside)


def _check_ending(ending: Ending, reason: str, usage: Usage) -> None:
    message = f"{_ENDED.get(ending, '')} (finish_reason: {reason})"
    match ending:
        case Ending.TRUNCATED:
            raise LlmFailure(Permanent("llm_truncated", message), usage=usage)
        case Ending.FILTERED:
            raise LlmFailure(Permanent("llm_content_filter", message), usage=usage)
        case Ending.REFUSED:
            raise LlmFailure(Permanent("llm_refusal", message), usage=usage)
        case Ending.MALFORMED:
            raise LlmFailure(Transient("llm_invalid_output", message), usage=usage)
        case Ending.BROKEN_OFF:
            raise NoCompletion(message, status=HTTPStatus.BAD_GATEWAY, usage=usage, maybe_billed=usage.maybe_billed)
        case Ending.WHOLE:
            return


def _found(choice: Choice) -> Found:
    """Return the first answer among the places where one may stand, or why the first that says anything has none."""
    none: Found | None = None
    for source in sources(choice.fields, choice.message):
        found = source.unpack()
        if found.value is not None:
            return found
        none = none or found
    return none or Found(problem="it is empty")


def _valid(found: Found, usage: Usage) -> Activities:
    if found.value is None:
        message = f"the answer is not three valid activities: {found.problem}"
        raise LlmFailure(Transient("llm_invalid_output", message), usage=usage)
    try:
        value = unpacked_each(found.value, found.kinds)
        return Activities.model_validate(without_null_lists(value, found.kinds))
    except ValidationError as error:
        raise LlmFailure(Transient("llm_invalid_output", _explain(error)), usage=usage) from error


def _explain(error: ValidationError) -> str:
    """Say which fields are wrong and why, not what stands in them: it may be long or private."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    path, cause = ".".join(str(part) for part in problems[0]["loc"]), problems[0]["msg"]
    if problems[0]["type"] in {"string_pattern_mismatch", "string_unicode"}:
        cause = "holds a character that Postgres cannot keep: NUL, or half a surrogate pair"
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"the answer is not three valid activities ({path}: {cause}{more})"
