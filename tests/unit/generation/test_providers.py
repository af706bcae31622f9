"""What becomes of the answers that providers are known to give: the tables of docs/providers.md, line by line."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.generation.answer import read
from consumers.generation.blame import Verdict
from consumers.generation.llm_errors import LlmFailure, of_no_completion, translate
from consumers.generation.no_completion import NoCompletion
from consumers.generation.rate_limits import LONGEST_WAIT
from infra.errors import DependencyDown
from tests.hostile import HOSTILE_TEXTS
from tests.unit.generation.test_packing import ACTIVITIES, GOOD, activities_in

_CASES = [json.loads(line) for line in Path(__file__).with_name("providers.jsonl").read_text().splitlines()]
_PAGE = Path(__file__).parents[3] / "docs" / "providers.md"
_LINE = re.compile(r"\| `([a-z]+)/([a-z0-9-]+)` \| (\d+) \| .* \| (\w+) \| `(\w+)` \| (.+) \|$")
_HOLDS = "holds the fleet"
_REQUEST = httpx2.Request("POST", "http://llm.test/v1/chat/completions")


def _name(case: dict[str, Any]) -> str:
    return f"{case['provider']}/{case['case']}"


def _bytes_of(body: object) -> bytes:
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
    return content.replace(b"@GOOD@", json.dumps(GOOD)[1:-1].encode())


def failure_of(status: int, headers: dict[str, str], body: object) -> LlmFailure:
    """Return what an answer of the endpoint becomes before any evidence, from its bytes."""
    content = _bytes_of(body)
    if status == 200:
        try:
            read(content, fallback_model="m")
        except LlmFailure as failure:
            return failure
        except NoCompletion as reported:
            return of_no_completion(reported, headers, url="http://llm.test/v1", model="m")
    response = httpx2.Response(status, headers=headers, content=content, request=_REQUEST)
    error = openai.APIStatusError("some text", response=response, body=None)
    return translate(error, url="http://llm.test/v1", model="m")


@pytest.mark.parametrize("case", [case for case in _CASES if case["blame"] != "nobody"], ids=_name)
def test_an_answer_is_blamed_on_whoever_is_to_blame(case: dict[str, Any]) -> None:
    """Who is to blame, the code, and the parts of the request that are refused; no key stands in the sentence."""
    failure = failure_of(case["status"], case["headers"], case["body"])
    verdict = failure.verdict or Verdict("prompt", failure.code, str(failure))
    assert (verdict.blame, verdict.code, sorted(verdict.refused)) == (case["blame"], case["code"], case["refused"])
    assert isinstance(failure.error, DependencyDown) == (case["blame"] != "prompt")
    assert "sk-abc" not in verdict.sentence + failure.words


@pytest.mark.parametrize("case", [case for case in _CASES if case["blame"] == "nobody"], ids=_name)
def test_an_answer_that_comes_otherwise_is_used_and_counted(case: dict[str, Any]) -> None:
    """Three activities are saved after one call, and what it cost is known."""
    assert (case["status"], case["code"]) == (200, "completed")
    content = _bytes_of(case["body"])
    assert activities_in(content) == ACTIVITIES
    usage = read(content, fallback_model="m").usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.maybe_billed) == (10, 20, False)


def test_every_line_of_the_page_is_a_case_and_every_case_a_line() -> None:
    """The page promises nothing that is not run."""
    lines = [match.groups() for match in map(_LINE.match, _PAGE.read_text().splitlines()) if match]
    assert lines == [
        (case["provider"], case["case"], str(case["status"]), case["blame"], case["code"], _follows(case))
        for case in _CASES
    ]


def _follows(case: dict[str, Any]) -> str:
    """Return what follows of an answer, as the page says it."""
    if case["refused"]:
        return f"asked again in another way; if nothing is left, {_HOLDS}"
    if case["code"] == "llm_invalid_output":
        return "tries this job again"
    return {"nobody": "is used", "prompt": "fails this job"}.get(case["blame"], _HOLDS)


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.sampled_from(HOSTILE_TEXTS)
)
_KEYS = st.sampled_from(["error", "message", "code", "param", "type", "detail", "loc", "status", "retryDelay"])
_BODIES = st.recursive(_LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(_KEYS, part, max_size=4))
_KNOWN = st.sampled_from([case["body"] for case in _CASES])
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "content-type"]),
    st.text("0123456789.-:infaTZ ", max_size=20),
    max_size=2,
)


@given(st.integers(300, 599), _HEADERS, st.binary(max_size=200) | _BODIES | _KNOWN)
def test_whatever_comes_has_one_outcome(status: int, headers: dict[str, str], body: object) -> None:
    """Nothing raises; waits are bounded; every status that no prompt causes holds; what is kept is one short line."""
    try:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
    except UnicodeEncodeError:
        content = b""
    failure = failure_of(status, headers, content)
    for wait in (failure.closed_for, getattr(failure.error, "retry_after", None)):
        assert wait is None or 0 <= wait.total_seconds() <= LONGEST_WAIT.total_seconds()
    if failure.verdict is not None and failure.verdict.blame in {"account", "configuration", "endpoint", "limit"}:
        assert isinstance(failure.error, DependencyDown)
    if status in {401, 402, 404, 405, 407, 502, 503, 504, 529}:
        assert isinstance(failure.error, DependencyDown)
    assert failure.code.startswith("llm_")
    text = str(failure.error)
    assert len(text) < 1_000
    assert text.isprintable()
