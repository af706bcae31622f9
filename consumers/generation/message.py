"""The answer may stand in several places of a message. They are its text, parts, a tool call, or a reasoning field."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from consumers.generation.activities import ACTIVITIES_PER_JOB
from consumers.generation.packing import Found, unpack, wanted_in

Json = Mapping[str, Any]

_REASONING: Final = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thought", "thoughts")
_THINKING_PARTS: Final = frozenset({*_REASONING, "redacted_thinking", "reasoning_summary", "summary_text"})
# Where a part of a list holds its text.
_PART_TEXTS: Final = ("text", "content", "output_text", "value")
_PART_VALUES: Final = ("json", "parsed", "input", "arguments")
_DECODED: Final = ("parsed", "structured_output", "structured_outputs", "json")
# Servers call the arguments of a call so.
_ARGUMENTS: Final = ("arguments", "input", "parameters", "args")


@dataclass(frozen=True, slots=True)
class Source:
    """A source is a place with a text or a JSON value. Its kind of packing is None for the usual place."""

    held: object
    kind: str | None = None

    def unpack(self) -> Found:
        """Return the answer that stands here."""
        if isinstance(self.held, str):
            found = unpack(self.held)
        else:
            kinds: set[str] = set()
            found = Found(wanted_in(self.held, kinds), kinds=kinds)
        found.kinds |= {self.kind} if self.kind else set()
        return found


def sources(choice: Json, message: Json) -> Iterator[Source]:
    """Yield the places where the answer may stand, the likeliest first.

    Reasoning counts only if nothing else is there: what a model considers is not what it answers.
    """
    said = [*_said(choice, message)]
    yield from said
    if not said:
        for name in _REASONING:
            if text := _text(message.get(name), thinking=None):
                yield Source(text, "reasoning")
        details = _text(message.get("reasoning_details"), thinking=None)
        if text := details or _text(message.get("content"), thinking=True):
            yield Source(text, "reasoning")


def _said(choice: Json, message: Json) -> Iterator[Source]:
    content = message.get("content")
    if isinstance(content, str):
        if content.strip():
            yield Source(content)
    elif text := _text(content):
        yield Source(text, "parts")
    if isinstance(content, dict | list):
        # Some servers decode the JSON themselves.
        values = content if isinstance(content, list) else [content]
        held = [value[name] for value in values if isinstance(value, dict) for name in _PART_VALUES if value.get(name)]
        if held:
            yield Source(_together(held), "parts")
        if any(isinstance(one, dict) and "type" not in one for one in values):
            yield Source(content, "decoded")
    for name in _DECODED:
        if message.get(name):
            yield Source(message[name], "decoded")
    if calls := list(_calls(message)):
        yield Source(_together(calls), "tool_call")
    for part in (choice, message):
        if isinstance(part.get("text"), str) and part["text"].strip():
            yield Source(part["text"], "text_field")


def _together(held: list[Any]) -> object:
    """Return what several calls or parts hold: a model may call once for each activity."""
    if len(held) == 1:
        return held[0]
    found = [wanted["activities"] for one in held if (wanted := wanted_in(one, set()))]
    if len(found) == len(held) and all(isinstance(one, list) and len(one) < ACTIVITIES_PER_JOB for one in found):
        return {"activities": [activity for one in found for activity in one]}
    # One a line; of several whole answers the last one counts.
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in held)


def _calls(message: Json) -> Iterator[object]:
    calls = message.get("tool_calls")
    if isinstance(calls, dict) and not {"function", *_ARGUMENTS} & calls.keys():
        calls = list(calls.values())
    stated = calls if isinstance(calls, list) else [calls]
    for call in [*stated, {"function": message.get("function_call")}]:
        if isinstance(call, dict):
            function = call.get("function")
            place = function if isinstance(function, dict) else call
            arguments = next((place[name] for name in _ARGUMENTS if place.get(name)), None)
            if arguments is not None:
                yield arguments


def _text(content: object, *, thinking: bool | None = False) -> str:
    """Return the texts of a content, whatever its shape: without those that are reasoning, these alone, or all."""
    match content:
        case str():
            return content
        case list():
            return "".join(_text(part, thinking=thinking) for part in content if thinking in {None, _is_thought(part)})
        case dict():
            names = _PART_TEXTS if thinking is False else (*_REASONING, "summary", *_PART_TEXTS)
            within = None if thinking else thinking
            return next((text for name in names if (text := _text(content.get(name), thinking=within))), "")
    return ""


def _is_thought(part: object) -> bool:
    return isinstance(part, dict) and (part.get("type") in _THINKING_PARTS or part.get("thought") is True)


def refusal_in(message: Json) -> bool:
    """Return whether the model refuses in a field or a part of its own."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    stated = [message.get("refusal"), *(part.get("refusal") for part in parts)]
    return any(one.strip() if isinstance(one, str) else one for one in stated)
