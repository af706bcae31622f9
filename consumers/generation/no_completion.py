"""A body under status 200 may be no chat completion. It is then an error, a page, another API's, or not known.

Endpoints and gateways under a wrong address give bodies of other APIs. What they hold is used, as it is paid for, and
three valid activities are what they are in any form. Where they hold none, the address is what has to be mended, and a
sentence says how.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from streams.jobs.completion import Usage

_REPORTS: Final = (
    *("error", "errors", "detail", "message", "msg", "error_msg", "error_message", "errormessage", "base_resp"),
    *("fault", "exception"),
)
# Gateways write these where there was no error.
_NO_ERROR: Final = frozenset({"", "0", "00", "200", "none", "null", "nil", "ok", "success", "no error", "false"})
_STATUSES: Final = ("code", "status", "status_code", "statuscode", "http_code", "httpcode")
_MOST_FIELDS: Final = 100
# MiniMax has generated such an answer, and keeps it.
_KEPT: Final = 1027


class NoCompletion(Exception):
    """A body under status 200 reports an error, or is no chat completion.

    Attributes:
        status: the status that it stands for, or None if it names none.
        body: the error that it holds, as JSON; None if it holds none.
        hint: which address to set, if it is the body of another API that holds no activities.
        holds_json: whether JSON stands in that one, as in the answer to a harmless question.
        usage: the tokens that it cost all the same.
        maybe_billed: whether it may have cost tokens that it does not name.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        body: object = None,
        hint: str = "",
        holds_json: bool = False,
        usage: Usage | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.hint = hint
        self.holds_json = holds_json
        self.usage = usage
        self.maybe_billed = maybe_billed


def reports(part: Mapping[str, Any]) -> bool:
    """Return whether a part of a body reports an error. Some servers send an empty one with each answer."""
    error = part.get("error")
    says_something = any(map(_is_error, error.values())) if isinstance(error, dict) else _is_error(error)
    has_failed = part.get("success") is False and bool(part.get("errors"))
    return says_something or has_failed or bool(_mapping(part.get("base_resp")).get("status_code"))


def reported(part: Mapping[str, Any], usage: Usage) -> NoCompletion:
    """Return what a part of a body reports, if anything, and its cost."""
    part = _report_in(_lowered(part))
    error = part.get("error") or part
    stated = [_lowered(_mapping(one)).get(name) for one in (error, part) for name in _STATUSES]
    statuses = [int(one) for one in map(str, stated) if re.fullmatch("[45][0-9]{2}", one)]
    is_report = _says(part)
    costs = usage.prompt_tokens is not None or usage.completion_tokens is not None
    is_kept = _mapping(part.get("base_resp")).get("status_code") == _KEPT
    return NoCompletion(
        f"the endpoint's answer is {'an error under status 200' if is_report else 'no chat completion'}",
        status=next(iter(statuses), None),
        body=error if is_report else None,
        usage=usage if costs else None,
        maybe_billed=usage.maybe_billed if costs else is_kept or not is_report,
    )


def _report_in(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object that reports: this one, or the one within it that has an error or a code with a sentence."""
    if _says(part):
        return part
    inner = [_lowered(one) for one in part.values() if isinstance(one, dict)]
    reports = [one for one in inner if one.get("error") or (one.get("code") and one.get("message"))]
    return reports[0] if len(reports) == 1 else part


def _says(part: Mapping[str, Any]) -> bool:
    return any(part.get(name) for name in _REPORTS)


def _lowered(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return {str(name).lower(): value for name, value in islice(part.items(), _MOST_FIELDS)}


def _is_error(stated: object) -> bool:
    is_word = isinstance(stated, str | int) and not isinstance(stated, bool)
    return bool(stated) and not (is_word and str(stated).strip().lower() in _NO_ERROR)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


Json: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OtherBody:
    """Such a body holds this, as the choices of a chat completion. `hint`: which address to set, if this is wrong."""

    choices: list[dict[str, Any]]
    kind: str
    hint: str = ""


def other_body(document: Json) -> OtherBody | None:
    """Return the content of another API's body, or None if it is unknown."""
    responses = _responses(document)
    if responses is not None:
        return OtherBody(responses, "responses")
    for read, name, address in _NATIVE:
        choices = read(document)
        if choices is not None:
            hint = f"answers in the form of {name}, which is no chat completion: set OPENAI_BASE_URL to {address}"
            return OtherBody(choices, "native", hint)
    return None


def _responses(document: Json) -> list[dict[str, Any]] | None:
    """The Responses API: `output` has messages, tool calls and reasoning, and `output_text` all texts in one."""
    output = document.get("output")
    items = [one for one in output if isinstance(one, dict)] if isinstance(output, list) else []
    is_response = document.get("object") == "response" and isinstance(output, list) and not document.get("error")
    if not items and not is_response and not isinstance(document.get("output_text"), str):
        return None
    content = [part for one in items if one.get("type", "message") == "message" for part in _list(one.get("content"))]
    reasoning = [one for one in items if one.get("type") == "reasoning"]
    calls = [one for one in items if one.get("type") == "function_call"]
    said = content or document.get("output_text")
    return [{"message": {"content": said, "tool_calls": calls, "reasoning_details": reasoning}}]


def _ollama(document: Json) -> list[dict[str, Any]] | None:
    if "done" not in document:
        return None
    message = document.get("message")
    if not isinstance(message, dict):
        message = {"content": document.get("response"), "thinking": document.get("thinking")}
    return [{"message": message, "finish_reason": document.get("done_reason")}]


def _gemini(document: Json) -> list[dict[str, Any]] | None:
    blocked = _dict(document.get("promptFeedback")).get("blockReason")
    if blocked:
        return [{"message": {}, "finish_reason": f"blocked: {blocked}"}]
    if not isinstance(document.get("candidates"), list):
        return None
    choices = []
    for one in map(_dict, document["candidates"]):
        parts = [_dict(part) for part in _list(_dict(one.get("content")).get("parts"))]
        calls = [{"arguments": _dict(part["functionCall"]).get("args")} for part in parts if "functionCall" in part]
        message = {"content": parts, "tool_calls": calls}
        choices.append({"message": message, "finish_reason": one.get("finishReason")})
    return choices


def _anthropic(document: Json) -> list[dict[str, Any]] | None:
    if not isinstance(document.get("content"), list) or not {"stop_reason", "role", "type"} & document.keys():
        return None
    return [{"message": {"content": document["content"]}, "finish_reason": document.get("stop_reason")}]


def _bedrock(document: Json) -> list[dict[str, Any]] | None:
    message = _dict(document.get("output")).get("message")
    if not isinstance(message, dict):
        return None
    return [{"message": message, "finish_reason": document.get("stopReason")}]


def _cohere(document: Json) -> list[dict[str, Any]] | None:
    message = document.get("message")
    if not isinstance(message, dict) or "content" not in message:
        return None
    return [{"message": message, "finish_reason": document.get("finish_reason")}]


def _llama_cpp(document: Json) -> list[dict[str, Any]] | None:
    if not isinstance(document.get("content"), str) or "stop" not in document:
        return None
    is_cut_off = document.get("stopped_limit") or document.get("stop_type") == "limit"
    return [{"message": {"content": document["content"]}, "finish_reason": "limit" if is_cut_off else "stop"}]


_Reader: TypeAlias = Callable[[Json], list[dict[str, Any]] | None]
_NATIVE: Final[tuple[tuple[_Reader, str, str], ...]] = (
    (_ollama, "Ollama's own API", "its address that ends in /v1 (http://HOST:11434/v1)"),
    (_gemini, "Gemini's own API", "https://generativelanguage.googleapis.com/v1beta/openai"),
    (_anthropic, "Anthropic's own API", "https://api.anthropic.com/v1"),
    (_bedrock, "Bedrock's Converse API", "its address that ends in /openai/v1"),
    (_llama_cpp, "llama.cpp's own API", "its address that ends in /v1 (http://HOST:8080/v1)"),
    (_cohere, "Cohere's own API", "https://api.cohere.ai/compatibility/v1"),
)


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]
