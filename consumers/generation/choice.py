"""A completion's choice holds activities, an ending, a refusal, or a fault."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError

from consumers.generation.activities import Activities
from consumers.generation.declining import declines
from consumers.generation.endings import Ending, ending_of
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.message import refusal_in, sources
from consumers.generation.no_completion import NoCompletion, reported, reports
from consumers.generation.packing import Found, unpacked_each, without_null_lists
from infra.errors import Permanent, Transient
from streams.jobs.completion import Usage

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
