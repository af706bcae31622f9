"""What the body of an answer with status 200 holds: activities and their cost, or why there are none.

Servers agree on the outline of a chat completion and on little else, so it is read field by field, and a field of
another type counts as absent. What decides, in this order: whether it is a completion at all (NoCompletion), how it
ended, whether it refuses, and whether the activities are valid (LlmFailure).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import orjson
from pydantic import ValidationError

from consumers.generation.activities import Activities
from consumers.generation.body import MOST_BYTES
from consumers.generation.endings import Ending, ending_of
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.message import refusal_in, sources
from consumers.generation.packing import Found, without_null_lists
from consumers.generation.usage import count, usage_of
from infra import telemetry
from infra.errors import Permanent, Transient
from streams.jobs.completion import Usage

Json = Mapping[str, Any]

_REPORTS: Final = ("error", "errors", "detail", "message", "msg")
_STATUSES: Final = ("code", "status", "status_code", "http_code")
_ENDED: Final = {
    Ending.TRUNCATED: "the answer was cut off at its limit (TEAMFIT_MAX_COMPLETION_TOKENS)",
    Ending.FILTERED: "the LLM's content filter stopped the answer",
    Ending.REFUSED: "the LLM refused to answer this request",
    Ending.MALFORMED: "the endpoint says that the answer is malformed",
    Ending.BROKEN_OFF: "the endpoint says that it broke the answer off",
}


class NoCompletion(Exception):
    """A body under status 200 that reports an error, or is no chat completion at all.

    Attributes:
        status: the status that it stands for: the one that it names, else 502.
        body: the error that it holds, as JSON; None if it holds none.
        usage: the tokens that it cost all the same.
        maybe_billed: whether it may have cost tokens that it does not name.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = HTTPStatus.BAD_GATEWAY,
        body: object = None,
        usage: Usage | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.usage = usage
        self.maybe_billed = maybe_billed


@dataclass(frozen=True, slots=True)
class Completion:
    """A valid answer and what it cost. `closed_for`: how long the endpoint will take no further call."""

    activities: Activities
    usage: Usage
    closed_for: timedelta | None = None


def read(content: bytes, *, fallback_model: str) -> Completion:
    """Return the activities in the body of an answer, and count its tokens.

    Raises:
        LlmFailure: there are none; it holds what the answer cost.
        NoCompletion: the body is not the LLM's answer.
    """
    document = _document(content)
    choices = document.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = _mapping(choice.get("message"))
    model = document.get("model")
    usage = usage_of(
        document.get("usage"),
        model=model if isinstance(model, str) and model.strip() else fallback_model,
        answered=next(sources(choice, message), None) is not None,
    )
    for report in (document, choice, message):
        if _says_something(report.get("error")):
            raise _reported(report, usage)
    if not isinstance(choices, list):
        raise _reported(document, usage)
    count(usage)
    _check_ending(*ending_of(choice, message, document), usage)
    if refusal_in(message):
        raise LlmFailure(Permanent("llm_refusal", _ENDED[Ending.REFUSED]), usage=usage)
    return Completion(_activities(choice, message, usage), usage)


def _document(content: bytes) -> Json:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        # More lenient, and slower: half a surrogate pair, bytes that are no UTF-8, a byte order mark.
        try:
            document = json.loads(content.decode("utf-8-sig", "replace"), strict=False)
        except (ValueError, RecursionError) as error:
            message = "the endpoint's answer is not JSON" if content.strip() else "the endpoint's answer is empty"
            if len(content) >= MOST_BYTES:
                message = f"the endpoint's answer is longer than {MOST_BYTES:,} bytes"
            raise NoCompletion(message, maybe_billed=True) from error
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        raise NoCompletion("the endpoint's answer is no chat completion", maybe_billed=True)
    return document


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _says_something(error: object) -> bool:
    """Return whether a server fills its `error`; some send it empty with each answer."""
    return any(error.values()) if isinstance(error, dict) else bool(error)


def _reported(document: Json, usage: Usage) -> NoCompletion:
    error = document.get("error") or document
    stated = [_mapping(one).get(name) for one in (error, document) for name in _STATUSES]
    statuses = [int(one) for one in map(str, stated) if re.fullmatch("[45][0-9]{2}", one)]
    is_report = any(document.get(name) for name in _REPORTS)
    costs = usage.prompt_tokens is not None
    return NoCompletion(
        f"the endpoint's answer is {'an error under status 200' if is_report else 'no chat completion'}",
        status=next(iter(statuses), HTTPStatus.BAD_GATEWAY),
        body=error if is_report else None,
        usage=usage if costs else None,
        maybe_billed=usage.maybe_billed if costs else not is_report,
    )


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
            raise NoCompletion(message, usage=usage, maybe_billed=usage.maybe_billed)
        case Ending.WHOLE:
            return


def _activities(choice: Json, message: Json, usage: Usage) -> Activities:
    content = message.get("content")
    if isinstance(content, str):
        try:
            return Activities.model_validate_json(content)
        except ValidationError:
            pass  # packed, or invalid
    found = _found(choice, message)
    if found.value is None:
        message_ = f"the answer is not three valid activities: {found.problem}"
        raise LlmFailure(Transient("llm_invalid_output", message_), usage=usage)
    try:
        activities = Activities.model_validate(without_null_lists(found.value, found.kinds))
    except ValidationError as error:
        raise LlmFailure(Transient("llm_invalid_output", _explain(error)), usage=usage) from error
    for kind in found.kinds:
        telemetry.LLM_UNPACKED.labels(kind).inc()
    return activities


def _found(choice: Json, message: Json) -> Found:
    """Return the first answer among the places where one may stand, or why the first that says anything has none."""
    none: Found | None = None
    for source in sources(choice, message):
        found = source.unpack()
        if found.value is not None:
            return found
        none = none or found
    return none or Found(problem="it is empty")


def _explain(error: ValidationError) -> str:
    """Say which fields are wrong and why, not what stands in them: it may be long or private."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    path, cause = ".".join(str(part) for part in problems[0]["loc"]), problems[0]["msg"]
    if problems[0]["type"] in {"string_pattern_mismatch", "string_unicode"}:
        cause = "holds a character that Postgres cannot keep: NUL, or half a surrogate pair"
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"the answer is not three valid activities ({path}: {cause}{more})"
