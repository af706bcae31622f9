"""A completion is found in whatever body it comes: pieces of a stream, a wrapper, other choices, other APIs."""

import gzip
import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.generation.answer import read
from consumers.generation.envelope import open_envelope
from consumers.generation.llm_errors import LlmFailure, of_no_completion
from consumers.generation.no_completion import NoCompletion
from infra.errors import DependencyDown, Permanent
from tests.unit.generation.test_packing import ACTIVITIES, GOOD, activities_in, body, failure_of

_USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
_CHOICE: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": GOOD}, "finish_reason": "stop"}
_PLAIN: dict[str, Any] = {"id": "c", "object": "chat.completion", "model": "m", "choices": [_CHOICE], "usage": _USAGE}
_EMPTY: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}


def _dumps(document: object) -> str:
    return json.dumps(document, ensure_ascii=False)


def _chunk(delta: object, finish_reason: str | None = None, **more: object) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


def _chunks(name: str = "content", size: int = 40) -> list[dict[str, Any]]:
    """Return an answer in pieces, as they are streamed."""
    pieces = [GOOD[at : at + size] for at in range(0, len(GOOD), size)]
    return [
        _chunk({"role": "assistant", name: None}),
        *(_chunk({name: piece}) for piece in pieces),
        _chunk({}, "stop"),
        {"object": "chat.completion.chunk", "model": "m", "choices": [], "usage": _USAGE},
    ]


def _sse(documents: Sequence[object], *, end: str = "\n\n", before: str = "", done: str = "data: [DONE]") -> str:
    return before + "".join(f"data: {_dumps(one)}{end}" for one in documents) + done


def _calls(*arguments: object) -> dict[str, Any]:
    calls = [
        {"id": f"c{at}", "type": "function", "function": {"name": "add", "arguments": one}}
        for at, one in enumerate(arguments)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _call_chunks() -> list[dict[str, Any]]:
    """Return a call for each activity, each in two pieces, as they are streamed."""
    texts = enumerate(map(_dumps, ACTIVITIES))
    pieces = [(at, piece) for at, text in texts for piece in (text[:50], text[50:])]
    calls = [{"index": at, "function": {"name": "add", "arguments": piece}} for at, piece in pieces]
    chunks = [_chunk({"tool_calls": [call]}) for call in calls]
    return [*chunks, _chunk({}, "tool_calls"), {"choices": [], "usage": _USAGE}]


_TEXTS = {
    "blank lines before": "\n  \r\n\n" + _dumps(_PLAIN),
    "comments before": ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + _dumps(_PLAIN),
    "comments before, with carriage returns": ": ping\r\n\r\n" + json.dumps(_PLAIN, indent=2),
    "byte order mark and comments": "\ufeff: ping\n" + _dumps(_PLAIN),
    "something after": _dumps(_PLAIN) + "\n\n[DONE]",
    "one event": _sse([_PLAIN]),
    "one event without an end": _sse([_PLAIN], done=""),
    "one event over several lines": "data: " + json.dumps(_PLAIN, indent=1).replace("\n", "\ndata: ") + "\n\n",
    "events": _sse(_chunks()),
    "events with comments": _sse(_chunks(), before=": OPENROUTER PROCESSING\n\n"),
    "events with names": "event: message\nid: 1\n" + _sse(_chunks(), end="\n\nevent: message\n"),
    "events without blank lines": _sse(_chunks(), end="\n"),
    "events without a space": _sse(_chunks()).replace("data: ", "data:"),
    "events with carriage returns": _sse(_chunks(), end="\r\n\r\n"),
    "events of reasoning alone": _sse(_chunks("reasoning_content")),
    "events of calls": _sse(_call_chunks()),
    "events, and the whole message in the last": _sse([*_chunks(), _PLAIN]),
    "an object a line": "\n".join(map(_dumps, _chunks())),
    "pieces in a list": _dumps(_chunks()),
    "a delta": _dumps(_PLAIN | {"choices": [{"index": 0, "delta": {"content": GOOD}, "finish_reason": "stop"}]}),
    "an empty message and a delta": _dumps(_PLAIN | {"choices": [_EMPTY | {"delta": {"content": GOOD}}]}),
    "a call for each activity": _dumps(_PLAIN | {"choices": [{"message": _calls(*map(_dumps, ACTIVITIES))}]}),
    "a decoded call for each": _dumps(_PLAIN | {"choices": [{"message": _calls(*ACTIVITIES)}]}),
    "a call for each, wrapped": _dumps(
        _PLAIN | {"choices": [{"message": _calls(*(_dumps({"activities": [one]}) for one in ACTIVITIES))}]}
    ),
    "a call that is not in a list": _dumps(
        _PLAIN | {"choices": [{"message": {"tool_calls": {"function": {"arguments": GOOD}}}}]}
    ),
    "a part for each": _dumps(
        _PLAIN | {"choices": [{"message": {"content": [{"type": "tool_use", "input": one} for one in ACTIVITIES]}}]}
    ),
    "a key for each": _dumps(
        _PLAIN | {"choices": [{"message": {"content": _dumps({f"a{at}": one for at, one in enumerate(ACTIVITIES)})}}]}
    ),
    "an empty first choice": _dumps(_PLAIN | {"choices": [_EMPTY, _CHOICE]}),
    "a null first choice": _dumps(_PLAIN | {"choices": [None, _CHOICE]}),
    "a first choice in prose": _dumps(_PLAIN | {"choices": [{"message": {"content": "Sure!"}}, _CHOICE]}),
    "a first choice that was cut off": _dumps(_PLAIN | {"choices": [_CHOICE | {"finish_reason": "length"}, _CHOICE]}),
    "choices as an object": _dumps(_PLAIN | {"choices": _CHOICE}),
    "choices as a numbered object": _dumps(_PLAIN | {"choices": {"0": _CHOICE}}),
    "a choice as a text": _dumps(_PLAIN | {"choices": [GOOD]}),
    "a message as a text": _dumps(_PLAIN | {"choices": [{"message": GOOD}]}),
    "a message with a text": _dumps(_PLAIN | {"choices": [{"message": {"role": "assistant", "text": GOOD}}]}),
    "a choice without a message": _dumps(_PLAIN | {"choices": [{"content": GOOD, "finish_reason": "stop"}]}),
    "messages": _dumps(_PLAIN | {"choices": [{"messages": [{"role": "assistant", "content": GOOD}]}]}),
    "result": _dumps({"result": _PLAIN, "success": True, "errors": [], "messages": []}),
    "data": _dumps({"code": 0, "msg": "success", "data": _PLAIN}),
    "response in response": _dumps({"response": {"status": "ok", "response": _PLAIN}}),
    "a body as a text": _dumps({"isBase64Encoded": False, "body": _dumps(_PLAIN), "headers": {}}),
    "output, and the cost beside it": _dumps({"output": {"choices": [_CHOICE]}, "usage": _USAGE, "request_id": "r"}),
    "in a list": _dumps([_PLAIN]),
    "a body as a text in Base64": _dumps(
        {"isBase64Encoded": True, "body": b64encode(_dumps(_PLAIN).encode()).decode()}
    ),
    "a body in a string": _dumps(_dumps(_PLAIN)),
    "predictions": _dumps({"predictions": [_PLAIN], "deployedModelId": "1"}),
    "a message in a list": _dumps(_PLAIN | {"choices": [{"message": [{"role": "assistant", "content": GOOD}]}]}),
    "events with the prefix twice": _sse(_chunks()).replace("data: ", "data: data: "),
    "the usage so far with each event": _sse(
        [one | {"usage": {"prompt_tokens": 10, "completion_tokens": min(at, 20)}} for at, one in enumerate(_chunks())]
    ),
    "base_resp": _dumps(_PLAIN | {"base_resp": {"status_code": 0, "status_msg": ""}, "input_sensitive": False}),
    "Cloudflare's own": _dumps({"result": {"response": GOOD, "usage": _USAGE}, "success": True, "errors": []}),
    "Cloudflare's own, decoded": _dumps({"result": {"response": json.loads(GOOD), "usage": _USAGE}, "success": True}),
}


@pytest.mark.parametrize("text", _TEXTS.values(), ids=_TEXTS)
def test_a_completion_is_found(text: str) -> None:
    """The activities come out on the first call, and what they cost is known."""
    completion = read(text.encode(), fallback_model="f")
    assert activities_in(text.encode()) == ACTIVITIES
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (10, 20)
    assert not completion.usage.maybe_billed


_BYTES = {
    "UTF-32": _dumps(_PLAIN).encode("utf-32"),
    "UTF-16 of the other order": b"\xfe\xff" + _dumps(_PLAIN).encode("utf-16-be"),
    "compressed, and no header says so": gzip.compress(_dumps(_PLAIN).encode()),
    "compressed twice": gzip.compress(gzip.compress(_dumps(_PLAIN).encode())),
    "deflated": zlib.compress(_dumps(_PLAIN).encode()),
    "behind a script's warning": b"<br />\n<b>Warning</b>: {x} in a.php\n" + _dumps(_PLAIN).encode(),
    "behind a guard": b")]}'\n" + _dumps(_PLAIN).encode(),
    "in a call": b"callback(" + _dumps(_PLAIN).encode() + b");",
    "chunks that a gateway left": b"64\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
    % ((sent := _dumps(_PLAIN).encode())[:100], len(sent) - 100, sent[100:]),
}


@pytest.mark.parametrize("content", _BYTES.values(), ids=_BYTES)
def test_a_completion_is_found_in_other_bytes(content: bytes) -> None:
    """Encodings and what HTTP puts around a body are taken off."""
    assert activities_in(content) == ACTIVITIES


@pytest.mark.parametrize(
    "content",
    [b"\x8b\x00\x80" * 20, b"\x28\xb5\x2f\xfd" * 9, b"\x1f\x8bno gzip", b"1\r\nx\r\n" * 100_000, b"ffffffff\r\n{"],
)
def test_bytes_that_are_no_text_say_so(content: bytes) -> None:
    """A gateway may compress as nobody asked it to, or break its own frame."""
    with pytest.raises(NoCompletion, match="the endpoint's answer is not JSON"):
        read(content, fallback_model="f")


_BARE = {
    "the activities": GOOD,
    "a list of activities": _dumps(ACTIVITIES),
    "a fence": f"Here you are:\n```json\n{GOOD}\n```",
    "a text in a text": _dumps(GOOD),
    "generated_text": _dumps([{"generated_text": GOOD}]),
    "reply": _dumps({"reply": GOOD, "id": "r"}),
}


@pytest.mark.parametrize("text", _BARE.values(), ids=_BARE)
def test_activities_without_a_completion_are_an_answer(text: str) -> None:
    """Three valid activities are nothing else, whatever they come in; what they cost is not known."""
    assert activities_in(text.encode()) == ACTIVITIES
    assert read(text.encode(), fallback_model="f").usage.maybe_billed


def _output(*items: object, **more: object) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
    return {"object": "response", "model": "m", "status": "completed", "output": list(items), "usage": usage, **more}


def _message(*parts: object) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "status": "completed", "content": list(parts)}


_THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
_SAID = _message({"type": "output_text", "text": GOOD})
_OLLAMA_COUNTS = {"done": True, "done_reason": "stop", "prompt_eval_count": 10, "eval_count": 20}
_GEMINI_COUNTS = {"promptTokenCount": 10, "candidatesTokenCount": 12, "thoughtsTokenCount": 8, "totalTokenCount": 30}
_PARTS = {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": GOOD}]}
_ANTHROPIC: dict[str, Any] = {"type": "message", "role": "assistant", "stop_reason": "end_turn"}
_ANTHROPIC_COUNTS = {
    "input_tokens": 4,
    "cache_creation_input_tokens": 1,
    "cache_read_input_tokens": 5,
    "output_tokens": 20,
}
_OTHERS: dict[str, object] = {
    "responses": _output(_THOUGHT, _SAID),
    "responses, in parts": _output(_message(*({"type": "output_text", "text": one} for one in (GOOD[:50], GOOD[50:])))),
    "responses, output_text": {**_output(), "output_text": GOOD},
    "responses, a call": _output(_THOUGHT, {"type": "function_call", "name": "f", "arguments": GOOD}),
    "responses, in a wrapper": {"response": _output(_SAID)},
    "ollama": {"model": "m", "message": {"role": "assistant", "content": GOOD}, **_OLLAMA_COUNTS},
    "ollama, generate": {"model": "m", "response": GOOD, **_OLLAMA_COUNTS},
    "ollama, a call": {
        "model": "m",
        "message": {"content": "", "tool_calls": [{"function": {"arguments": {"activities": ACTIVITIES}}}]},
        **_OLLAMA_COUNTS,
    },
    "gemini": {"candidates": [{"content": _PARTS, "finishReason": "STOP"}], "usageMetadata": _GEMINI_COUNTS},
    "gemini, a call": {
        "candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"activities": ACTIVITIES}}}]}}],
        "usageMetadata": _GEMINI_COUNTS,
    },
    "gemini, streamed": [
        {"candidates": [{"content": {"parts": [{"text": GOOD[:99]}]}}]},
        {"candidates": [{"content": {"parts": [{"text": GOOD[99:]}]}}], "usageMetadata": _GEMINI_COUNTS},
    ],
    "anthropic": {**_ANTHROPIC, "content": [{"type": "text", "text": GOOD}], "usage": _ANTHROPIC_COUNTS},
    "anthropic, a tool": {
        **_ANTHROPIC,
        "stop_reason": "tool_use",
        "content": [{"type": "tool_use", "name": "f", "input": {"activities": ACTIVITIES}}],
        "usage": _ANTHROPIC_COUNTS,
    },
    "bedrock": {
        "output": {"message": {"role": "assistant", "content": [{"text": GOOD}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 10, "outputTokens": 20, "totalTokens": 30},
    },
    "cohere": {
        "message": {"role": "assistant", "content": [{"type": "text", "text": GOOD}]},
        "finish_reason": "COMPLETE",
        "usage": {"tokens": {"input_tokens": 10, "output_tokens": 20}},
    },
    "llama.cpp": {"content": GOOD, "stop": True, "stop_type": "eos", "tokens_evaluated": 10, "tokens_predicted": 20},
}


@pytest.mark.parametrize("document", _OTHERS.values(), ids=_OTHERS)
def test_the_answer_of_another_api_is_used_and_counted(document: object) -> None:
    """It is paid for, and three valid activities are what they are: nobody has to wait for an operator."""
    content = _dumps(document).encode()
    assert activities_in(content) == ACTIVITIES
    usage = read(content, fallback_model="f").usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.maybe_billed) == (10, 20, False)


def test_a_streamed_answer_of_anthropic_is_joined() -> None:
    """Its events are of another form than those that were asked for."""
    texts = [GOOD[at : at + 300] for at in range(0, len(GOOD), 300)]
    usage = {"input_tokens": 10, "output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**_ANTHROPIC, "model": "m", "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": one}} for one in texts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
    ]
    content = _sse(events, done="").encode()
    assert activities_in(content) == ACTIVITIES
    usage_read = read(content, fallback_model="f").usage
    assert (usage_read.model, usage_read.prompt_tokens, usage_read.completion_tokens) == ("m", 10, 20)
    events[-2]["delta"]["stop_reason"] = "max_tokens"
    assert failure_of(_sse(events, done="").encode()).code == "llm_truncated"


def test_a_streamed_answer_of_ollama_is_joined() -> None:
    """It streams by default, an object a line."""
    lines = [
        {"model": "m", "message": {"role": "assistant", "content": one}, "done": False}
        for one in (GOOD[:70], GOOD[70:])
    ]
    last = {"model": "m", "message": {"role": "assistant", "content": ""}, **_OLLAMA_COUNTS}
    assert activities_in("\n".join(map(_dumps, [*lines, last])).encode()) == ACTIVITIES


_PROSE: dict[str, tuple[dict[str, Any], str]] = {
    "ollama": ({"message": {"content": "Sure!"}, **_OLLAMA_COUNTS}, "11434/v1"),
    "gemini": (
        {"candidates": [{"content": {"parts": [{"text": "Sure!"}]}}], "usageMetadata": _GEMINI_COUNTS},
        "/v1beta/openai",
    ),
    "anthropic": (
        {**_ANTHROPIC, "content": [{"type": "text", "text": "Sure!"}], "usage": _ANTHROPIC_COUNTS},
        "api.anthropic.com/v1",
    ),
    "llama.cpp": ({"content": "Sure!", "stop": True, "timings": {"prompt_n": 10, "predicted_n": 20}}, "8080/v1"),
}


@pytest.mark.parametrize("name", _PROSE)
def test_another_api_that_brings_no_activities_names_the_address_to_set(name: str) -> None:
    """It takes no form, so each job would fail: the configuration is to blame, and what it cost is known."""
    document, address = _PROSE[name]
    with pytest.raises(NoCompletion) as raised:
        read(_dumps(document).encode(), fallback_model="f")
    failure = of_no_completion(raised.value, {}, url="http://llm.test", model="m")
    assert isinstance(failure.error, DependencyDown)
    assert failure.code == "llm_misconfigured"
    assert address in str(failure.error)
    assert "OPENAI_BASE_URL" in str(failure.error)
    assert failure.usage is not None
    assert (failure.usage.prompt_tokens, failure.usage.completion_tokens, failure.maybe_billed) == (10, 20, False)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"message": {"content": GOOD[:99]}, **_OLLAMA_COUNTS, "done_reason": "length"}, "llm_truncated"),
        ({"candidates": [{"content": {"parts": [{"text": GOOD}]}, "finishReason": "MAX_TOKENS"}]}, "llm_truncated"),
        ({"candidates": [{"finishReason": "SAFETY"}]}, "llm_content_filter"),
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "llm_content_filter"),
        ({**_ANTHROPIC, "content": [{"type": "text", "text": GOOD[:9]}], "stop_reason": "max_tokens"}, "llm_truncated"),
        ({**_ANTHROPIC, "content": [], "stop_reason": "refusal"}, "llm_refusal"),
        ({"content": GOOD[:99], "stop": True, "stopped_limit": True}, "llm_truncated"),
        (_output(_SAID, status="incomplete", incomplete_details={"reason": "max_output_tokens"}), "llm_truncated"),
        (_output(_message({"type": "refusal", "refusal": "no"})), "llm_refusal"),
        (_output(_SAID, status="incomplete", incomplete_details={"reason": "content_filter"}), "llm_content_filter"),
        (_output(status="incomplete", incomplete_details={"reason": "content_filter"}), "llm_content_filter"),
    ],
)
def test_how_the_answer_of_another_api_ended_counts(document: object, code: str) -> None:
    """Cut off, filtered and refused are what they are elsewhere."""
    failure = failure_of(_dumps(document).encode())
    assert (type(failure.error), failure.code) == (Permanent, code)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (_sse([*_chunks()[:9], _chunk({}, "length")]), "llm_truncated"),
        (_sse([_chunk({"content": "{"}), _chunk({}, "content_filter")]), "llm_content_filter"),
        (_sse(_chunks()[:5]), "llm_invalid_output"),
        (_sse([_chunk({"refusal": "I can"}), _chunk({"refusal": "not"}), _chunk({}, "stop")]), "llm_refusal"),
        (_dumps(_PLAIN | {"choices": [_EMPTY, _EMPTY]}), "llm_invalid_output"),
        (_dumps(_PLAIN | {"choices": {}}), "llm_invalid_output"),
        (_dumps(_PLAIN | {"choices": [_EMPTY, _CHOICE | {"finish_reason": "length"}]}), "llm_truncated"),
    ],
)
def test_a_joined_answer_is_read_like_any(text: str, code: str) -> None:
    """How it ended stands in one of its pieces, and what is missing is missing."""
    assert failure_of(text.encode()).code == code


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        (_sse([_chunk({"content": "{"}), {"error": {"code": 429, "message": "slow down"}}]), "llm_rate_limited", 429),
        (_sse([{"error": {"message": "Provider returned error", "code": 502}}]), "llm_server_error", 502),
        (
            _dumps({"result": None, "success": False, "errors": [{"code": 3040}]}),
            "llm_server_error",
            502,
        ),
        (_dumps({"statusCode": 503, "body": "{}"}), "llm_server_error", 503),
        (_dumps({"error": "Unexpected endpoint or method. (POST /chat/completions)"}), "llm_misconfigured", 400),
    ],
)
def test_an_error_in_a_stream_or_a_wrapper_is_one(text: str, code: str, status: int) -> None:
    """Its status is the one that it names; words decide where it names none."""
    with pytest.raises(NoCompletion) as raised:
        read(text.encode(), fallback_model="f")
    failure = of_no_completion(raised.value, {}, url="http://llm.test/v1", model="m")
    assert (failure.code, failure.status) == (code, status)


def _failure(document: object) -> LlmFailure:
    try:
        read(_dumps(document).encode(), fallback_model="f")
    except LlmFailure as failure:
        return failure
    except NoCompletion as error:
        return of_no_completion(error, {}, url="http://llm.test/v1", model="m")
    raise AssertionError


@pytest.mark.parametrize(
    "body_of_another",
    ["Ollama is running", "<html>log in</html>", '{"object": "list", "data": [{"id": "m"}]}', '{"status": "ok"}', ""],
)
def test_a_body_that_nobody_asked_for_names_the_address_too(body_of_another: str) -> None:
    """It holds, as an outage may answer so; whoever reads why learns what else it may be."""
    with pytest.raises(NoCompletion) as raised:
        read(body_of_another.encode(), fallback_model="f")
    failure = of_no_completion(raised.value, {}, url="http://llm.test", model="m")
    assert isinstance(failure.error, DependencyDown)
    assert (failure.code, failure.status, failure.maybe_billed) == ("llm_server_error", 502, True)
    assert "OPENAI_BASE_URL" in str(failure.error)


_SORRY = (
    "I'm sorry, I can't help with that.",
    "I\u2019m sorry, but I can\u2019t assist with that request.",
    "I cannot create activities that would harm people.",
    "As an AI language model, I cannot do that.",
    "I must respectfully decline.",
    "We are unable to provide this.",
    "This request goes against our content policy.",
    "<think>Is that allowed? {no}</think>I won't help with that.",
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "Je suis désolé, je ne peux pas vous aider.",
    "Lo siento, no puedo ayudar con eso.",
    "Desculpe, não posso ajudar com isso.",
    "Mi dispiace, non posso aiutarti.",
    "抱歉,我无法提供相关内容。",
    "申し訳ありませんが、お手伝いできません。",
    "I apologize, but I'm not comfortable creating that kind of content.",
    "Sorry, but that's not something I can help with.",
    "The request was rejected because it was considered high risk",
    '{"error": "I cannot help with that."}',
    '{"activities": [], "note": "I cannot help with that."}',
    "Niestety, nie mogę w tym pomóc.",
    "Вибачте, я не можу допомогти з цим запитом.",
    "Omlouvám se, ale s tímto požadavkem nemohu pomoci.",
    "Sajnálom, de ebben nem tudok segíteni.",
    "Valitettavasti en voi auttaa tässä pyynnössä.",
    "Îmi pare rău, dar nu pot ajuta cu această cerere.",
    "Jag kan tyvärr inte hjälpa till med det.",
    "Det kan jeg desværre ikke hjælpe med.",
    "Przykro mi, nie jestem w stanie tego zrobić.",
    "Λυπάμαι, δεν μπορώ να βοηθήσω με αυτό το αίτημα.",  # noqa: RUF001 - Greek is meant
    "عذراً، لا أستطيع المساعدة في هذا الطلب.",
    "מצטער, אני לא יכול לעזור בבקשה זו.",
    "क्षमा करें, मैं इस अनुरोध में सहायता नहीं कर सकता।",
    "Maaf, saya tidak dapat membantu permintaan ini.",
    "Xin lỗi, tôi không thể giúp bạn với yêu cầu này.",
    "ขออภัย ฉันไม่สามารถช่วยเหลือได้",
)


@pytest.mark.parametrize("text", _SORRY)
def test_a_refusal_in_prose_fails_its_job_after_one_call(text: str) -> None:
    """Another call would be answered alike, and would be paid for too."""
    failure = _failure(_PLAIN | {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
    assert (type(failure.error), failure.code) == (Permanent, "llm_refusal")
    assert failure.usage is not None
    assert failure.usage.completion_tokens == 20


def test_a_refusal_that_is_the_whole_body_is_one_too() -> None:
    """No JSON at all comes, under 200."""
    failure = failure_of(b"I'm sorry, I can't help with that.")
    assert (failure.code, failure.maybe_billed) == ("llm_refusal", True)


@pytest.mark.parametrize(
    "text",
    [
        "Sure! 1. Trust fall",
        "I can't wait to share these! 1. Trust fall",
        "I'm sorry for the delay: here are three ideas.",
        "No.",
        GOOD[:-1],
        "I cannot do more than two: " + GOOD[:200],
        "A remote hour. " * 200 + "I cannot help with that.",
        '{"activities": []}',
    ],
)
def test_other_prose_is_no_refusal(text: str) -> None:
    """It is tried again: another answer may hold activities."""
    assert failure_of(body({"content": text})).code == "llm_invalid_output"


@pytest.mark.parametrize(
    ("document", "code", "is_certain"),
    [
        ({"error": "Content violates our usage policies"}, "llm_content_filter", False),
        (
            {"error": {"message": "It was flagged", "type": "moderation"}},
            "llm_content_filter",
            True,
        ),
        ({"error": "I'm sorry, I can't help with that"}, "llm_refusal", False),
        ({"error": "NSFW content detected"}, "llm_content_filter", False),
        ({"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}, "llm_content_filter", True),
        ({"choices": None, "base_resp": {"status_code": 1027, "status_msg": "x"}}, "llm_content_filter", True),
        (
            {"error": {"code": "1301", "message": "内容可能包含不安全或敏感内容"}},
            "llm_content_filter",
            True,
        ),
        ({"error": {"code": 1261, "message": "Prompt too long"}}, "llm_prompt_too_long", False),
        ({"base_resp": {"status_code": 1039, "status_msg": "token limit"}}, "llm_prompt_too_long", False),
        ({"detail": "This model's maximum context length is 4096 tokens"}, "llm_prompt_too_long", False),
        ({"header": {"code": 10013, "message": "input content moderation not pass"}}, "llm_content_filter", False),
    ],
)
def test_an_error_under_200_that_is_about_the_prompt_fails_its_job(
    document: object, code: str, *, is_certain: bool
) -> None:
    """It names no status, so its words decide, as under a 400."""
    failure = _failure(document)
    assert (type(failure.error), failure.code) == (Permanent, code)
    assert failure.verdict is not None
    assert (failure.verdict.blame, failure.verdict.certain) == ("prompt", is_certain)


@pytest.mark.parametrize(
    ("document", "blame", "code"),
    [
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "limit", "llm_rate_limited"),
        ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "account", "llm_misconfigured"),
        (
            {"base_resp": {"status_code": 1008, "status_msg": "no balance"}},
            "account",
            "llm_insufficient_quota",
        ),
        ({"base_resp": {"status_code": 1013, "status_msg": "unknown error"}}, "endpoint", "llm_server_error"),
        ({"error": {"code": "1113", "message": "账户欠费"}}, "account", "llm_insufficient_quota"),
        ({"error": {"code": "1302", "message": "并发"}}, "limit", "llm_rate_limited"),
        ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, "limit", "llm_rate_limited"),
        ({"error_code": 110, "error_msg": "Access token invalid"}, "account", "llm_misconfigured"),
        ({"error": "overloaded"}, "endpoint", "llm_server_error"),
        ({"error": "Incorrect API key provided"}, "account", "llm_misconfigured"),
        ({"error": {"message": "The model `m` does not exist"}}, "configuration", "llm_misconfigured"),
        (
            {"Response": {"Error": {"Code": "AuthFailure.SecretIdNotFound", "Message": "x"}, "RequestId": "r"}},
            "account",
            "llm_misconfigured",
        ),
        (
            {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "x"}, "RequestId": "r"}},
            "limit",
            "llm_rate_limited",
        ),
        (
            {"ResponseMetadata": {"Error": {"HTTPCode": 403, "Message": "Access denied: invalid access key"}}},
            "account",
            "llm_misconfigured",
        ),
        ({"Message": "Too Many Requests"}, "limit", "llm_rate_limited"),
        ({"fault": {"faultstring": "Rate limit quota violation"}}, "limit", "llm_rate_limited"),
        ({"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out"}, "endpoint", "llm_server_error"),
    ],
)
def test_an_error_under_200_that_everybody_meets_holds(document: object, blame: str, code: str) -> None:
    """Whom its words blame, as elsewhere; the endpoint if they say nothing."""
    failure = _failure(document)
    assert isinstance(failure.error, DependencyDown)
    assert failure.verdict is not None
    assert (failure.verdict.blame, failure.code) == (blame, code)


def test_an_answer_that_its_provider_keeps_may_have_been_billed() -> None:
    """MiniMax looks at answers too; a prompt that it refuses has cost nothing."""
    for code, maybe_billed in {1026: False, 1027: True}.items():
        failure = _failure({"base_resp": {"status_code": code, "status_msg": "sensitive"}})
        assert failure.maybe_billed == maybe_billed


_FILTERED = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": True, "severity": "high"}}


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"message": {}, "finish_reason": None, "content_filter_results": _FILTERED}]},
        {
            "choices": [
                {"message": {"content": GOOD[:40]}, "finish_reason": "stop", "content_filter_results": _FILTERED}
            ]
        },
        {"choices": [{"message": {"content": None, "content_filter_results": _FILTERED}}]},
        {"choices": [{"message": {}}], "prompt_filter_results": [{"content_filter_results": _FILTERED}]},
        {"choices": [{"message": {"content": "Sorry"}}], "amazon-bedrock-guardrailAction": "INTERVENED"},
    ],
)
def test_a_filter_that_speaks_beside_the_answer_stops_it(document: dict[str, Any]) -> None:
    """Azure says so by category, without a finish reason."""
    failure = _failure(document | {"usage": _USAGE})
    assert (type(failure.error), failure.code) == (Permanent, "llm_content_filter")


@pytest.mark.parametrize("results", [{}, None, {"hate": {"filtered": False}}, {"hate": "x"}, [1]])
def test_a_filter_that_stops_nothing_says_nothing(results: object) -> None:
    """Azure sends the categories with each answer."""
    choice = _CHOICE | {"content_filter_results": results}
    assert (
        activities_in(_dumps(_PLAIN | {"choices": [choice], "prompt_filter_results": [results]}).encode()) == ACTIVITIES
    )


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "stop", "native_finish_reason": "MAX_TOKENS"},
        {"finish_reason": "stop", "native_finish_reason": "length"},
        {"finish_reason": "limit"},
        {"finish_reason": "LIMIT"},
        {"finish_reason": "stop", "stop_reason": "max_tokens"},
    ],
)
def test_a_cut_off_answer_is_truncated_though_a_gateway_writes_stop(choice: dict[str, Any]) -> None:
    """What the model's own server says counts too."""
    failure = _failure(_PLAIN | {"choices": [_CHOICE | choice]})
    assert (type(failure.error), failure.code) == (Permanent, "llm_truncated")


_BODIES = [_PLAIN, *_OTHERS.values(), *(document for document, _ in _PROSE.values()), *_chunks()[:3]]
_PIECES = st.sampled_from(["data: ", "\n", "\n\n", ": ping\n", "[DONE]", "{", "}", "<html>", "\ufeff", "event: x\n"])


@given(parts=st.lists(_PIECES | st.sampled_from(_BODIES), max_size=6), cut=st.integers(0, 200))
def test_whatever_comes_has_an_outcome(parts: list[object], cut: int) -> None:
    """Any order of comments, pieces and bodies, cut off anywhere, is an answer or a failure."""
    text = "".join(one if isinstance(one, str) else _dumps(one) for one in parts)
    content = text[: len(text) - cut].encode()
    envelope = open_envelope(content)
    assert envelope.choices is None or (envelope.choices and not envelope.problem)
    try:
        read(content, fallback_model="f")
    except NoCompletion as error:
        of_no_completion(error, {}, url="http://llm.test/v1", model="m")
    except LlmFailure:
        pass


@pytest.mark.parametrize(
    "text",
    [
        "data: {}\n\n" * 100_000,
        "data: " + "[" * 100_000,
        "\n".join(_dumps(_chunk({"content": "x"})) for _ in range(30_000)),
        '{"a":' * 50_000,
        ": ping\n" * 200_000,
        "x\ndata: " * 50_000,
        "data: {\n" * 200_000,
        _dumps({"choices": [{"message": {"content": "no"}}] * 50_000}),
        _dumps({f"k{at}": '{"choices": 1}' for at in range(50_000)}),
    ],
)
def test_a_hostile_stream_is_a_failure(text: str) -> None:
    """Depth and repetition end in an ordinary failure."""
    with pytest.raises((LlmFailure, NoCompletion)):
        read(text.encode(), fallback_model="f")
