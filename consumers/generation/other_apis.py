"""This module reads bodies of other APIs than chat completions. Endpoints and gateways under a wrong address give them.

What they answer is used, since it is paid for, and three valid activities are what they are in any form. Where they
hold none, the address is what has to be mended, and a sentence says how.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

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
