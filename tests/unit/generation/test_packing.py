"""Packing comes off and content stays: three activities are read as they are, whatever stands around them."""

import contextlib
import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.generation.answer import read
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.no_completion import NoCompletion
from infra.errors import Permanent, Transient
from infra.local.llm.composer import compose

ACTIVITIES: list[dict[str, Any]] = [dict(one) for one in compose("a remote hour for 8 people")]
GOOD = json.dumps({"activities": ACTIVITIES})
_AS_STRING = json.dumps(GOOD)
_TWO = json.dumps({"activities": ACTIVITIES[:2]})
_LISTS = {"properties": {"activities": {"type": "array"}}}


def body(message: object, *, finish_reason: object = "stop", **more: object) -> bytes:
    """Return a chat completion with this message."""
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return orjson.dumps({"model": "m", "choices": [choice], "usage": usage, **more})


def activities_in(content: bytes) -> list[dict[str, Any]]:
    """Read a body and return its activities as they would be saved."""
    activities: list[dict[str, Any]] = orjson.loads(read(content, fallback_model="f").activities.encode())
    return activities


def failure_of(content: bytes) -> LlmFailure:
    """Read a body that holds no activities."""
    with pytest.raises(LlmFailure) as raised:
        read(content, fallback_model="f")
    return raised.value


@pytest.mark.parametrize(
    "text",
    {
        "plain": GOOD,
        "indented": json.dumps({"activities": ACTIVITIES}, indent=2),
        "fence": f"```json\n{GOOD}\n```",
        "fence without a language": f"Here you are:\n```\n{GOOD}\n```\nEnjoy {{it}}!",
        "fence of tildes": f"~~~json5\n{GOOD}\n~~~",
        "fence in a line": f"```{GOOD}```",
        "fence that is not closed": f"```JSON\n{GOOD}",
        "two fences": f"```python\nprint({{}})\n```\n```json\n{GOOD}\n```",
        "a draft and the answer": f"```json\n{_TWO}\n```\nBetter:\n```json\n{GOOD}\n```",
        "a fence for each": "\n".join(f"### {one['title']}\n```json\n{json.dumps(one)}\n```" for one in ACTIVITIES),
        "text around": f'As you said, "three": {GOOD} and "that is all"',
        "the shape before the answer": 'I answer as {"activities": [...]}:\n' + GOOD,
        "the schema before the answer": json.dumps(_LISTS) + "\n" + GOOD,
        "bytes after": GOOD + "<|im_end|>\n}",
        "said twice": GOOD + "\n" + GOOD,
        "said twice, the second time cut off": GOOD + "\n" + GOOD[:200],
        "think": f"<think>\nthree {{ideas}}\n</think>\n{GOOD}",
        "thinking": f'<thinking depth="2">{_TWO}</thinking>{GOOD}',
        "reasoning": f"<reasoning>hm</reasoning>\n\n{GOOD}",
        "THINK": f"[THINK]hm[/THINK]{GOOD}",
        "two thoughts": f"<think>a</think><think>b <think>c</think>{GOOD}",
        "thought that is not closed": f"<think> hm\n{GOOD}",
        "thought that was opened by the prompt": f'hm {{"activities": [1]}}</think>{GOOD}',
        "nothing but a thought": f"<think>{GOOD}</think>",
        "channels": f"<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>{GOOD}<|return|>",
        "byte order mark": "\ufeff" + GOOD,
        "JSON as a string": _AS_STRING,
        "JSON as a string twice": json.dumps(_AS_STRING),
        "JSON as a string in a fence": f"```json\n{_AS_STRING}\n```",
        "bare list": json.dumps(ACTIVITIES),
        "an object a line": "\n".join(map(json.dumps, ACTIVITIES)),
        "another key": json.dumps({"team_activities": ACTIVITIES}),
        "wrapped": json.dumps({"result": {"data": {"activities": ACTIVITIES}}}),
        "wrapped, with a comment": json.dumps({"note": "for you", "answer": {"activities": ACTIVITIES}}),
        "in a list": json.dumps([{"activities": ACTIVITIES}]),
        "wrapped twice": json.dumps({"activities": {"activities": ACTIVITIES}}),
        "list as a string": json.dumps({"activities": json.dumps(ACTIVITIES)}),
        "numbered": json.dumps({"activities": dict(enumerate(ACTIVITIES, 1))}),
        "by title": json.dumps({"activities": {one["title"]: one for one in ACTIVITIES}}),
        "each wrapped": json.dumps({"activities": [{"activity": one} for one in ACTIVITIES]}),
        "each wrapped, without the object around": json.dumps([{"activity": one} for one in ACTIVITIES]),
        "each wrapped, a line": "\n".join(json.dumps({"activity": one}) for one in ACTIVITIES),
        "each as a string": json.dumps({"activities": [*map(json.dumps, ACTIVITIES)]}),
        "numbered list": "\n".join(f"{at}. {json.dumps(one)}" for at, one in enumerate(ACTIVITIES, 1)),
        "the inside of a string": _AS_STRING[1:-1],
        "the inside of a string, in prose": f"Here: {_AS_STRING[1:-1]} Enjoy!",
        "assignment": f"const activities = {json.dumps(ACTIVITIES)};",
        "call": f"callback({GOOD});",
        "XSSI guard": ")]}',\n" + GOOD,
        "element": f"<answer>\n{GOOD}\n</answer>",
        "call in the text": f'<tool_call>{{"name": "a", "arguments": {GOOD}}}</tool_call>',
        "call in the text, as a string": json.dumps({"name": "a", "arguments": GOOD}),
        "Mistral's calls": f'[TOOL_CALLS] [{{"name": "a", "arguments": {GOOD}}}]',
        "Llama's calls": f'<|python_tag|>{{"name": "a", "parameters": {GOOD}}}',
        "ReAct": f"Thought: three.\nAction: answer\nAction Input: {GOOD}",
        "turn of Llama's": f"<|start_header_id|>assistant<|end_header_id|>\n\n{GOOD}<|eot_id|>",
        "thought of Seed's": f'<seed:think>{{"activities": []}}</seed:think>{GOOD}',
        "boxed": f"$$\\boxed{{{GOOD}}}$$",
        "NUL after": GOOD + "\0\0",
        "no-break and zero-width spaces around": f"\u200b\u00a0{GOOD}\u200b",
        "fence of four, with attributes": f'````json title="a.json"\r\n{GOOD}\r\n````',
        "schema with the answer in it": json.dumps({"type": "object", "properties": {"activities": ACTIVITIES}}),
        "its own error, empty": json.dumps({"error": None, "success": True, "activities": ACTIVITIES}),
        "numbers as strings": GOOD.replace('"min": ', '"min": "').replace(', "max": ', '", "max": '),
        "whole numbers with a point": GOOD.replace('"duration_minutes": 60,', '"duration_minutes": 60.0,'),
        "each as a string in a fence": json.dumps(
            {"activities": [f"```json\n{json.dumps(one)}\n```" for one in ACTIVITIES]}
        ),
        "quoted by Markdown": "\n".join(
            f"> {line}" for line in json.dumps({"activities": ACTIVITIES}, indent=1).splitlines()
        ),
        "no-break spaces between": json.dumps({"activities": ACTIVITIES}, indent=2).replace("  ", "\u00a0\u00a0"),
        "a zero-width space between": GOOD.replace(", ", ",\u200b ", 1),
        "as HTML": "<p>" + GOOD.replace('"', "&quot;") + "</p>",
        "thought of Command's": f"<|START_THINKING|>{_TWO}<|END_THINKING|><|START_RESPONSE|>{GOOD}<|END_RESPONSE|>",
        "box of GLM's": f"<think>hm</think><|begin_of_box|>{GOOD}<|end_of_box|>",
        "channels without their marks": f"analysisThree {{of them}}assistantfinal{GOOD}",
        "steps and the final response": f"My steps:\n{_TWO}\n[BEGIN FINAL RESPONSE]\n{GOOD}\n[END FINAL RESPONSE]",
        "comments around": f"// three\n/* of them */ {GOOD} // end",
        "line breaks in strings": GOOD.replace('"activities"', '"note": "one\ntwo", "activities"'),
    }.items(),
    ids=lambda case: case[0],
)
def test_packing_comes_off(text: tuple[str, str]) -> None:
    """The same three activities come out of every packing, on the first call."""
    assert activities_in(body({"role": "assistant", "content": text[1]})) == ACTIVITIES


@pytest.mark.parametrize(
    "message",
    [
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": _TWO}]},
                {"type": "text", "text": GOOD},
            ]
        },
        {"content": [{"type": "output_text", "text": GOOD[:90]}, {"type": "output_text", "text": GOOD[90:]}]},
        {"content": ["Here: ", GOOD]},
        {"content": [{"text": {"value": GOOD}}]},
        {"content": [{"type": "text", "content": GOOD}]},
        {"content": {"type": "text", "text": GOOD}},
        {"content": [{"type": "tool_use", "input": {"activities": ACTIVITIES}}]},
        {"content": {"activities": ACTIVITIES}},
        {"content": ACTIVITIES},
        {"content": None, "parsed": {"activities": ACTIVITIES}},
        {"content": "", "reasoning_content": f"I think: {GOOD}"},
        {"content": " \n", "reasoning": GOOD},
        {"content": None, "reasoning_details": [{"type": "reasoning.text", "text": GOOD}]},
        {"content": [{"type": "thinking", "thinking": GOOD}]},
        {"content": [{"type": "reasoning", "summary": [{"text": GOOD}]}, {"type": "text", "text": ""}]},
        {"content": None, "tool_calls": [{"type": "function", "function": {"name": "a", "arguments": GOOD}}]},
        {"content": "Calling.", "tool_calls": [{"function": {"arguments": {"activities": ACTIVITIES}}}]},
        {"function_call": {"name": "a", "arguments": GOOD}},
        {"content": None, "tool_calls": {"0": {"function": {"name": "a", "arguments": GOOD}}}},
        {"content": None, "tool_calls": [{"name": "a", "input": {"activities": ACTIVITIES}}]},
        {"content": None, "tool_calls": [{"function": {"name": "a", "parameters": {"activities": ACTIVITIES}}}]},
        {"content": None, "tool_calls": [{"type": "tool_call", "args": {"activities": ACTIVITIES}}]},
        {"content": None, "structured_output": {"activities": ACTIVITIES}},
        {"content": GOOD, "refusal": "", "tool_calls": None, "reasoning": None},
    ],
)
def test_the_answer_may_stand_in_another_place(message: dict[str, object]) -> None:
    """Parts, decoded JSON, tool calls, and, when nothing else is said, the reasoning."""
    assert activities_in(body(message)) == ACTIVITIES


def test_null_for_an_empty_list_is_an_empty_list() -> None:
    """Nothing is needed: some models write that as null."""
    answer = json.dumps({"activities": [one | {"materials": None} for one in ACTIVITIES]})
    assert activities_in(body({"content": answer})) == [one | {"materials": []} for one in ACTIVITIES]


def _changed(**changes: object) -> str:
    activities = copy.deepcopy(ACTIVITIES)
    activities[1].update(changes)
    return json.dumps({"activities": activities})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_TWO, "activities: List should have at least 3 items"),
        (json.dumps([*ACTIVITIES, ACTIVITIES[0]]), "activities: List should have at most 3 items"),
        (json.dumps(ACTIVITIES[0]), "activities: List should have at least 3 items"),
        ('{"activities": null}', "activities: Input should be a valid list"),
        ('{"activities": "soon"}', "activities: Input should be a valid list"),
        (_changed(steps=None), "activities.1.steps: List should have at least 1 item"),
        (_changed(title=""), "activities.1.title: String should have at least 1 character"),
        (_changed(title="a\0b"), "activities.1.title: holds a character that Postgres cannot keep"),
        (_changed(title="a\ud800b"), "activities.1.title: holds a character that Postgres cannot keep"),
        (_changed(duration_minutes="60 minutes"), "activities.1.duration_minutes: Input should be a valid integer"),
        (_changed(duration_minutes=60.5), "activities.1.duration_minutes: Input should be a valid integer"),
        (_changed(duration_minutes=True), "activities.1.duration_minutes: Value error, should be a number"),
        (_changed(duration_minutes=10**300), "activities.1.duration_minutes: Input should be less"),
        (_changed(duration_minutes=float("nan")), "activities.1.duration_minutes: Input should be a finite number"),
        (_changed(group_size={"min": 5, "max": 4}), "activities.1.group_size: Value error, max is below min"),
        (_changed(materials="none"), "activities.1.materials: Input should be a valid list"),
        (GOOD[:-1], "its JSON is broken"),
        (GOOD[:-200], "its JSON is broken"),
        (f"```json\n{GOOD[:-2]}\n```", "its JSON is broken"),
        (GOOD.replace('"activities"', "'activities'"), "its JSON is broken"),
        (f"<think>{GOOD}</think>I had to think.", "it holds no JSON object with activities"),
        ("Sure! 1. Trust fall", "it holds no JSON object with activities"),
        ("", "it is empty"),
    ],
)
def test_content_is_never_repaired(text: str, says: str) -> None:
    """Everything that is not packing is invalid, and the message names the field and the cause."""
    # As a lenient server sends it: half a surrogate pair stays an escape.
    content = body({"content": "TEXT"}).replace(b'"TEXT"', json.dumps(text).encode())
    failure = failure_of(content)
    assert failure.code == "llm_invalid_output"
    assert isinstance(failure.error, Transient)
    assert says in str(failure)
    assert failure.usage is not None
    assert failure.usage.completion_tokens == 20


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"' * 100_000, '[{"title":' * 50_000, "<think>" * 50_000, '"{' * 100_000],
)
def test_a_hostile_text_is_invalid(text: str) -> None:
    """Depth and repetition end in an ordinary failure."""
    assert failure_of(body({"content": text})).code == "llm_invalid_output"


@pytest.mark.parametrize(
    "reason",
    [
        "length",
        "LENGTH",
        "max_tokens",
        "MAX_TOKENS",
        "max-tokens",
        "MaxTokens",
        "max_output_tokens",
        "model_length",
        "incomplete",
        "token_limit",
        "FINISH_REASON_MAX_TOKENS",
        "model_context_window_exceeded",
        "truncated",
        "max_length",
        "out_of_tokens",
    ],
)
def test_cut_off_in_any_spelling_is_truncated(reason: str) -> None:
    """An answer cut off at its limit fails its job at once, also when what there is of it is whole."""
    for content in (None, GOOD[:100], GOOD):
        failure = failure_of(body({"content": content}, finish_reason=reason))
        assert (type(failure.error), failure.code) == (Permanent, "llm_truncated")


@pytest.mark.parametrize(
    "more",
    [
        {"choices": [{"message": {"content": GOOD}, "finish_reason": None, "native_finish_reason": "MAX_TOKENS"}]},
        {"choices": [{"message": {"content": GOOD}, "finish_reason": {"type": "max_tokens"}}]},
        {"choices": [{"message": {"content": GOOD}}], "incomplete_details": {"reason": "max_output_tokens"}},
        {"choices": [{"message": {"content": GOOD}, "stop_reason": "max_tokens"}]},
    ],
)
def test_the_reason_may_stand_in_another_place(more: dict[str, object]) -> None:
    """Without a known finish_reason, the other fields that servers use are asked."""
    assert failure_of(body({}, **more)).code == "llm_truncated"


@pytest.mark.parametrize(
    "reason",
    [
        "content_filter",
        "CONTENT_FILTER",
        "content-filter",
        "SAFETY",
        "RECITATION",
        "PROHIBITED_CONTENT",
        "BLOCKLIST",
        "SPII",
        "sensitive",
        "MODEL_ARMOR",
        "ERROR_TOXIC",
        "content_risk",
        "policy_violation",
        "unsafe",
        "JAILBREAK",
        "content_filter: PROHIBITED_CONTENT",
    ],
)
def test_a_content_filter_in_any_spelling(reason: str) -> None:
    """A filter ends the job at once."""
    failure = failure_of(body({"content": GOOD}, finish_reason=reason))
    assert (type(failure.error), failure.code) == (Permanent, "llm_content_filter")


@pytest.mark.parametrize(
    ("message", "finish_reason"),
    [
        ({"refusal": "no"}, "stop"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "stop"),
        ({"content": GOOD, "refusal": True}, "stop"),
        ({"content": None}, "refusal"),
    ],
)
def test_a_refusal_in_any_place(message: dict[str, object], finish_reason: str) -> None:
    """The model says no in a field of its own, in a part, or as the reason."""
    failure = failure_of(body(message, finish_reason=finish_reason))
    assert (type(failure.error), failure.code) == (Permanent, "llm_refusal")


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "UNEXPECTED_TOOL_CALL", "malformed_response"])
def test_an_answer_that_its_server_calls_malformed_is_not_saved(reason: str) -> None:
    """The whole JSON may be there all the same; the server knows better."""
    failure = failure_of(body({"content": GOOD}, finish_reason=reason))
    assert failure.code == "llm_invalid_output"
    assert reason.lower() in str(failure)


@pytest.mark.parametrize(
    "reason", ["error", "insufficient_system_resource", "network_error", "abort", "cancelled", "time_limit"]
)
def test_an_answer_that_its_server_broke_off_is_the_endpoints_failure(reason: str) -> None:
    """It is not saved, and what it cost is not forgotten."""
    with pytest.raises(NoCompletion) as raised:
        read(body({"content": GOOD}, finish_reason=reason), fallback_model="f")
    assert raised.value.usage is not None
    assert raised.value.usage.completion_tokens == 20


@pytest.mark.parametrize(
    "reason", ["stop", "STOP", "end_turn", "eos", "tool_calls", "whatever", "", None, 7, ["length"]]
)
def test_a_whole_answer_with_any_other_reason_is_saved(reason: object) -> None:
    """An unknown reason, or none, says nothing against valid activities."""
    assert activities_in(body({"content": GOOD}, finish_reason=reason)) == ACTIVITIES


@pytest.mark.parametrize(
    ("content", "status", "maybe_billed"),
    [
        (b"", None, True),
        (b"<html>busy</html>", None, True),
        (b"[" * 100_000, None, True),
        (b'{"choices": [{"message": {"content": "cut o', None, True),
        (b"[]", None, True),
        (b'"text"', None, True),
        (b"{}", None, True),
        (b'{"choices": null, "usage": null, "error": {"message": "x", "code": 429}}', 429, False),
        (b'{"error": {"message": "x", "code": "rate_limit_exceeded"}}', None, False),
        (b'{"error": {"message": "x", "status": 503}}', 503, False),
        (b'{"error": "overloaded", "code": "529"}', 529, False),
        (b'[{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]', 429, False),
        (b'{"object": "error", "message": "loading", "code": 503}', 503, False),
        (b'{"detail": "Internal error"}', None, False),
        (b'{"choices": [{"message": {}, "error": {"code": 502}, "finish_reason": "error"}]}', 502, False),
    ],
)
def test_a_body_that_is_no_completion_is_the_endpoints_failure(
    content: bytes, status: int | None, *, maybe_billed: bool
) -> None:
    """It stands for the status that it names, if it names one; an error that says so is not billed."""
    with pytest.raises(NoCompletion) as raised:
        read(content, fallback_model="f")
    assert (raised.value.status, raised.value.maybe_billed) == (status, maybe_billed)


@pytest.mark.parametrize(
    "error",
    [
        *(None, "", {}, [], False, 0, "None", "null", "0", "OK"),
        *({"message": "", "code": None}, {"message": "success", "code": 0}, {"code": "200", "message": "Ok"}),
    ],
)
def test_an_empty_error_is_none(error: object) -> None:
    """Some servers send the field with each answer."""
    assert activities_in(body({"content": GOOD}, error=error)) == ACTIVITIES


@pytest.mark.parametrize("content", [b'{"choices": []}', b'{"choices": [null]}', b'{"choices": [{"message": "x"}]}'])
def test_a_completion_without_a_choice_is_invalid_output(content: bytes) -> None:
    """There is an answer, and it is empty."""
    assert failure_of(content).code == "llm_invalid_output"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([GOOD, _TWO]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
_FIELDS = ("choices", "message", "content", "usage", "error", "model", "finish_reason", "refusal", "tool_calls", "text")


@given(
    document=st.dictionaries(st.sampled_from(_FIELDS), _JSON),
    choice=st.dictionaries(st.sampled_from(_FIELDS), _JSON),
    message=st.dictionaries(st.sampled_from(_FIELDS), _JSON),
)
def test_any_json_is_an_answer_or_a_failure(document: Any, choice: Any, message: Any) -> None:
    """No shape of any field raises anything else."""
    whole = {"choices": [{"message": message, **choice}], **document}
    with contextlib.suppress(LlmFailure, NoCompletion):
        read(json.dumps(whole).encode(), fallback_model="f")
