"""Streams as providers send them: each is a whole answer in pieces, framed in that provider's way."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from tests.unit.generation.test_packing import GOOD

PIECES: Final = [GOOD[at : at + 11] for at in range(0, len(GOOD), 11)]
USAGE: Final = {"prompt_tokens": 310, "completion_tokens": 470, "total_tokens": 780}
DONE: Final = "data: [DONE]\n\n"


def event(data: object, *, name: str | None = None) -> str:
    """Return one server-sent event."""
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def chunk(delta: Any, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a piece in OpenAI's form."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def usual(texts: Iterable[str] = PIECES, **more: Any) -> list[dict[str, Any]]:
    """Return the pieces of an answer, without its usage."""
    first = chunk({"role": "assistant", "content": "", "refusal": None}, **more)
    return [first, *(chunk({"content": text}, **more) for text in texts), chunk({}, "stop", **more)]


def sent(*pieces: object, done: bool = True) -> str:
    """Return a stream of these pieces."""
    return "".join(event(piece) for piece in pieces) + (DONE if done else "")


def _no_choices(usage: object) -> dict[str, Any]:
    return {**chunk({}), "choices": [], "usage": usage}


def _usage_in_choice() -> dict[str, Any]:
    last = chunk({}, "stop")
    last["choices"][0]["usage"] = USAGE
    return last


def _second_choice(piece: dict[str, Any]) -> dict[str, Any]:
    return {**piece, "choices": [*piece["choices"], {"index": 1, "delta": {"content": "?"}}]}


def _no_index(piece: dict[str, Any]) -> dict[str, Any]:
    return {**piece, "choices": [{"delta": piece["choices"][0]["delta"]}]}


def _openai() -> str:
    pieces = usual(usage=None, service_tier="default", system_fingerprint="fp", obfuscation="aXk")
    return sent(*pieces, _no_choices(USAGE))


def _azure() -> str:
    filtered = {"hate": {"filtered": False, "severity": "safe"}}
    first = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    first["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": filtered}]
    pieces = usual()
    for piece in pieces:
        piece["choices"][0]["content_filter_results"] = filtered if piece["choices"][0]["delta"] else {}
    return sent(first, *pieces, _no_choices(USAGE))


def _gemini() -> str:
    halves = [GOOD[:1000], GOOD[1000:]]
    pieces = [chunk({"role": "assistant", "content": text}, usage=USAGE) for text in halves]
    pieces[-1]["choices"][0]["finish_reason"] = "stop"
    for piece in pieces:
        del piece["choices"][0]["logprobs"]
    return sent(*pieces)


def _mistral() -> str:
    *texts, last = usual()
    return sent(*texts, {**last, "usage": USAGE})


def _mistral_thinking() -> str:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": 'They like {"title": "puzzles"}.'}]}]
    *texts, last = usual()
    return sent(chunk({"content": thought}), *texts, {**last, "usage": USAGE})


def _groq() -> str:
    first, *texts, last = usual()
    return sent({**first, "x_groq": {"id": "req_1"}}, *texts, {**last, "x_groq": {"id": "req_1", "usage": USAGE}})


def _deepseek() -> str:
    thoughts = [chunk({"content": None, "reasoning_content": text}) for text in ("First I ", "think. ", "{")]
    texts = [chunk({"content": text, "reasoning_content": None}) for text in PIECES]
    return sent(*thoughts, *texts, chunk({"content": ""}, "stop", usage=USAGE))


def _vllm() -> str:
    counted = [
        chunk(
            {"content": text}, usage={"prompt_tokens": 310, "completion_tokens": number, "total_tokens": 310 + number}
        )
        for number, text in enumerate(PIECES, 1)
    ]
    first, *_ = usual()
    stop = chunk({"content": ""}, "stop", stop_reason=None)
    return sent(first, *counted, stop, _no_choices(USAGE))


def _ollama() -> str:
    texts = [chunk({"role": "assistant", "content": text}) for text in PIECES]
    return sent(*texts, chunk({"role": "assistant", "content": ""}, "stop"), _no_choices(USAGE))


def _llama_cpp() -> str:
    timings = {"prompt_n": 310, "predicted_n": 470, "predicted_ms": 1.5}
    *texts, last = usual()
    return sent(*texts, last, {**_no_choices(USAGE), "timings": timings})


def _openrouter() -> str:
    waiting = ": OPENROUTER PROCESSING\n\n"
    texts = [chunk({"role": "assistant", "content": text}, native_finish_reason=None) for text in PIECES]
    return (
        waiting * 3 + sent(*texts[:9], done=False) + waiting + sent(*texts[9:], chunk({}, "stop"), _no_choices(USAGE))
    )


def _perplexity() -> str:
    pieces, before = [], ""
    for text in PIECES:
        before += text
        piece = chunk({"role": "assistant", "content": text}, usage=USAGE)
        piece["choices"][0]["message"] = {"role": "assistant", "content": before}
        pieces.append(piece)
    pieces[-1]["choices"][0]["finish_reason"] = "stop"
    return sent(*pieces)


def _message(piece: dict[str, Any]) -> dict[str, Any]:
    choice = piece["choices"][0]
    return {**piece, "choices": [{"index": 0, "message": choice["delta"], "finish_reason": choice["finish_reason"]}]}


def _tool_call() -> str:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "activities", "arguments": ""}}
    parts = [chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}) for text in PIECES]
    return sent(chunk({"tool_calls": [call]}), *parts, chunk({}, "tool_calls"), _no_choices(USAGE))


def _crlf() -> str:
    return _openai().replace("\n", "\r\n")


def _cr() -> str:
    return _openai().replace("\n", "\r")


def _no_blank_lines() -> str:
    return _openai().replace("\n\n", "\n")


def _no_space() -> str:
    return _openai().replace("data: ", "data:")


def _several_lines() -> str:
    lines = [json.dumps(piece, indent=1) for piece in (*usual(), _no_choices(USAGE))]
    return "".join("".join(f"data: {line}\n" for line in one.splitlines()) + "\n" for one in lines)


def _other_fields() -> str:
    pieces = (*usual(), _no_choices(USAGE))
    return "retry: 3000\n\n" + "".join(f"id: {at}\n{event(one, name='chunk')}" for at, one in enumerate(pieces))


def _fenced() -> str:
    return sent(*usual(["```json\n", *PIECES, "\n```"]), _no_choices(USAGE))


def _error_after_the_end() -> str:
    return _openai() + event({"error": {"message": "late", "code": 500}})


def _zeros_last() -> str:
    zeros = dict.fromkeys(USAGE, 0)
    return sent(*usual(), _no_choices(USAGE), _no_choices(zeros))


def _growing() -> str:
    texts = ["".join(PIECES[:number]) for number in range(1, len(PIECES) + 1)]
    return sent(*usual(texts), _no_choices(USAGE))


def _pings() -> str:
    return "data: ping\n\ndata:\n\n" + sent(
        {"type": "ping"}, *usual(), {**chunk({}), "choices": None}, _no_choices(USAGE)
    )


def _numbered(number: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": number, "delta": {"content": text}, "finish_reason": reason}


def _choices(*choices: dict[str, Any]) -> dict[str, Any]:
    return {**chunk({}), "choices": list(choices)}


def _two_choices() -> str:
    pieces = [piece for text in PIECES for piece in (_numbered(1, text[::-1]), _numbered(0, text))]
    ends = [_numbered(1, "", "stop"), _numbered(0, "", "stop")]
    return sent(*map(_choices, pieces + ends), _no_choices(USAGE))


def _two_choices_in_a_piece() -> str:
    pairs = [[_numbered(0, text), _numbered(1, text[::-1])] for text in PIECES]
    pieces = [_choices(*(pair[::-1] if at % 3 == 0 else pair)) for at, pair in enumerate(pairs)]
    return sent(*pieces, _choices(_numbered(1, "", "stop"), _numbered(0, "", "stop")), _no_choices(USAGE))


def _second_choice_is_valid() -> str:
    pieces = [piece for text in PIECES for piece in (_numbered(0, text[::-1]), _numbered(1, text))]
    return sent(*map(_choices, pieces), _choices(_numbered(0, "", "stop")), _no_choices(USAGE))


def _several_calls(*, numbered: bool) -> str:
    deltas = []
    for number, activity in enumerate(json.loads(GOOD)["activities"]):
        text, known = json.dumps(activity), {"index": number} if numbered else {}
        named = {"id": f"t{number}", "type": "function"}
        deltas.append({**named, **known, "function": {"name": "activity", "arguments": ""}})
        again = known if numbered else named
        deltas += [{**again, "function": {"arguments": text[at : at + 20]}} for at in range(0, len(text), 20)]
    return sent(*(chunk({"tool_calls": [one]}) for one in deltas), chunk({}, "tool_calls"), _no_choices(USAGE))


def _parts() -> str:
    """Text as a list of parts, as a string, or with a thought beside it, from one piece to the next."""
    pieces: list[Any] = []
    for at, text in enumerate(PIECES):
        part = {"type": "text", "text": text}
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": "{"}]}
        pieces.append(([part], text, [thought, part])[at % 3])
    return sent(*(chunk({"content": one}) for one in pieces), chunk({}, "stop"), _no_choices(USAGE))


def _heartbeats() -> str:
    pieces = (*usual(), _no_choices(USAGE))
    beats = (
        "data:\n\n",
        "data: keep-alive\n\n",
        "data: {}\n\n",
        'event: ping\ndata: {"type": "ping"}\n\n',
        ":\n",
        "\n\n",
    )
    return "".join(beats[at % len(beats)] + event(piece) for at, piece in enumerate(pieces)) + DONE


def _empty_fields() -> str:
    pieces = [
        piece for text in PIECES for piece in (chunk({"content": text}, ""), chunk({"content": None}), chunk(None))
    ]
    return sent(*pieces, chunk({"role": "assistant", "content": ""}, "stop", usage=USAGE), _no_choices(None))


# How providers send the same answer; all three activities are told while it comes.
TOLD: Final[dict[str, Callable[[], str]]] = {
    "OpenAI": _openai,
    "Azure, a first piece of its filter's results": _azure,
    "Gemini, few pieces, usage in each": _gemini,
    "Mistral, usage in the last": _mistral,
    "Mistral, thoughts as parts": _mistral_thinking,
    "Groq, usage in x_groq": _groq,
    "DeepSeek, reasoning first": _deepseek,
    "vLLM, usage in each": _vllm,
    "Ollama": _ollama,
    "llama.cpp, timings": _llama_cpp,
    "OpenRouter, comments": _openrouter,
    "Perplexity, all that came before in each": _perplexity,
    "CR LF": _crlf,
    "CR": _cr,
    "no blank lines": _no_blank_lines,
    "no space": _no_space,
    "several lines an event, no [DONE]": _several_lines,
    "event names, IDs, retry": _other_fields,
    "fenced": _fenced,
    "an error after its end": _error_after_the_end,
    "zeros after its usage": _zeros_last,
    "pings": _pings,
    "usage first": lambda: sent(_no_choices(USAGE), *usual()),
    "usage in the choice": lambda: sent(*usual()[:-1], _usage_in_choice()),
    "nulls in each piece": lambda: sent(
        *(chunk({"content": text, "tool_calls": None, "refusal": None}) for text in PIECES),
        chunk({"content": None}, "stop"),
        _no_choices(USAGE),
    ),
    "an end in each piece that is none": lambda: sent(
        *(chunk({"content": text}, "null") for text in PIECES), chunk(None, "stop"), _no_choices(USAGE)
    ),
    "other choices beside": lambda: sent(*map(_second_choice, usual()), _no_choices(USAGE)),
    "no index": lambda: sent(*map(_no_index, usual()), {"usage": USAGE}),
    "comments after the end": lambda: _openai() + ": cost 0.01\n\n" + event({"cost": "0.01", "choices": []}),
    "another end, quoted": lambda: _openai().replace("[DONE]", '"[DONE]"'),
    "a byte order mark": lambda: "\ufeff" + _gemini(),
    "two choices by turns": _two_choices,
    "two choices in each piece, in any order": _two_choices_in_a_piece,
    "parts, texts, and thoughts beside them": _parts,
    "parts": lambda: sent(
        *(chunk({"content": [{"type": "text", "text": text}]}) for text in PIECES),
        chunk({}, "stop"),
        _no_choices(USAGE),
    ),
    "signs of life": _heartbeats,
    "empty fields, null usage at last": _empty_fields,
    "numbers as texts": lambda: _openai().replace('"index": 0', '"index": "0"'),
    "numbers of no kind": lambda: _openai().replace('"index": 0', '"index": [0]'),
    "a list an event": lambda: sent(*([piece] for piece in (*usual(), _no_choices(USAGE)))),
    "the whole message at last": lambda: sent(
        *usual()[:-1], _choices({"index": 0, "message": {"content": GOOD}, "finish_reason": "stop"}), _no_choices(USAGE)
    ),
    "no [DONE], no line's end": lambda: sent(*usual(), _no_choices(USAGE), done=False).rstrip(),
}
# These are read as well, and told only as a whole.
NOT_TOLD: Final[dict[str, Callable[[], str]]] = {
    "all that came before, in each piece": _growing,
    "messages in place of deltas": lambda: sent(*map(_message, usual()), {"usage": USAGE}),
    "a function call": lambda: sent(
        *(chunk({"function_call": {"arguments": text}}) for text in PIECES),
        chunk({}, "function_call"),
        _no_choices(USAGE),
    ),
    "a tool call": _tool_call,
    "three tool calls": lambda: _several_calls(numbered=True),
    "three tool calls without numbers": lambda: _several_calls(numbered=False),
    "the second choice is the valid one": _second_choice_is_valid,
    "messages": lambda: sent(
        *(_choices({"index": 0, "message": {"content": text}}) for text in PIECES), _no_choices(USAGE)
    ),
    "texts": lambda: sent(*(_choices({"index": 0, "text": text}) for text in PIECES), _no_choices(USAGE)),
    "thoughts in the text": lambda: sent(*usual(["<think>Like {", *PIECES, "</think>", *PIECES]), _no_choices(USAGE)),
    "prose before": lambda: sent(*usual(['As you said, "three": ', *PIECES]), _no_choices(USAGE)),
}
