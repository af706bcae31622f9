"""A call's cost is known or unknown, never zero or wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.generation.answer import count, stated_usage, usage_of
from streams.jobs.completion import MOST_TOKENS, Usage

_ABSURD: list[Any] = [None, -1, 0, 2**31 - 1, 2**31, 2**63, 10**400, 1e30, 12.5, float("nan"), "12", True, [], {}]


def _read(stated: object, *, answered: bool = True) -> tuple[int | None, int | None, bool]:
    usage = usage_of(stated, model="m", answered=answered)
    return usage.prompt_tokens, usage.completion_tokens, usage.maybe_billed


@pytest.mark.parametrize("stated", [None, {}, [], "many", 7, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_a_missing_usage_is_unknown(stated: object) -> None:
    """Zeros, as servers write them that do not count, are no better than nothing."""
    assert _read(stated) == (None, None, True)


@pytest.mark.parametrize("absurd", _ABSURD)
def test_an_absurd_count_is_unknown_and_the_other_is_kept(absurd: object) -> None:
    """Null, negative, huge, or of another type: what is known stays known."""
    assert _read({"prompt_tokens": 10, "completion_tokens": absurd}) == (10, None, True)
    assert _read({"prompt_tokens": absurd, "completion_tokens": 20}) == (None, 20, True)
    assert _read({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": absurd}) == (10, 20, False)


@pytest.mark.parametrize(
    ("stated", "known"),
    [
        ({"prompt_tokens": 12, "completion_tokens": None, "total_tokens": 345}, (12, 333, False)),
        ({"prompt_tokens": 12, "total_tokens": 345}, (12, 333, False)),
        ({"completion_tokens": 20, "total_tokens": 345}, (325, 20, False)),
        ({"total_tokens": 345}, (None, 345, False)),
        # Reasoning that the server left out of both.
        ({"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 345}, (12, 333, False)),
        ({"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 5}, (12, 20, False)),
        # A count that is there and wrong makes the total doubtful.
        ({"prompt_tokens": 1151, "completion_tokens": -35, "total_tokens": 1116}, (1151, None, True)),
        ({"prompt_tokens": 10, "completion_tokens": -5, "total_tokens": 30}, (10, None, True)),
        ({"prompt_tokens": 12, "total_tokens": 12}, (12, None, True)),
        *[
            (names, (12, 20, False))
            for names in (
                {"input_tokens": 12, "output_tokens": 20},
                {"inputTokens": 12, "outputTokens": 20},
                {"promptTokens": 12, "completionTokens": 20, "totalTokens": 32},
                {"PromptTokens": 12, "CompletionTokens": 20},
                {"prompt_token_count": 12, "candidates_token_count": 20},
                {"prompt_tokens_count": 12, "completion_tokens_count": 20},
                {"input_token_count": 12, "generated_token_count": 20},
                {"prompt-tokens": 12.0, "completion-tokens": 20.0},
            )
        ],
    ],
)
def test_tokens_that_only_the_total_has_are_counted(stated: object, known: tuple[int | None, int | None, bool]) -> None:
    """The total fills what is missing, as far as the counts agree with it."""
    assert _read(stated) == known


_COUNTED = {"prompt_tokens": 10, "completion_tokens": 20}
_TIMINGS = {"prompt_n": 10, "prompt_ms": 30.1, "predicted_n": 20, "predicted_ms": 900.2}


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"prompt_tokens": 0}}])
@pytest.mark.parametrize(
    ("beside", "known"),
    [
        ({"x_groq": {"id": "r", "usage": _COUNTED}}, (10, 20, False)),
        ({"timings": _TIMINGS}, (10, 20, False)),
        # What came from the cache was sent all the same.
        ({"timings": _TIMINGS | {"prompt_n": 1, "cache_n": 9}}, (10, 20, False)),
        (
            {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 30}},
            (10, 20, False),
        ),
        ({"prompt_eval_count": 10, "eval_count": 20}, (10, 20, False)),
        ({"timings": {"prompt_n": 10}}, (10, None, True)),
        ({"timings": {"prompt_n": 0, "predicted_n": 0}}, (None, None, True)),
        ({"x_groq": {"usage": None}, "timings": None}, (None, None, True)),
        ({"x_groq": {"usage": {"prompt_tokens": -1, "completion_tokens": "20"}}}, (None, None, True)),
        ({"timings": _TIMINGS | {"predicted_n": 2**40}}, (10, None, True)),
    ],
)
def test_a_cost_that_stands_elsewhere_is_counted(
    usage: dict[str, Any], beside: dict[str, Any], known: tuple[int | None, int | None, bool]
) -> None:
    """Where `usage` says nothing, the other places are read; where none says anything, it is unknown, never zero."""
    assert _read(stated_usage(usage | beside)) == known


def test_usage_counts_before_any_other_place() -> None:
    """Timings leave out what was cached."""
    assert _read(stated_usage({"timings": {"prompt_n": 1, "predicted_n": 2}, "usage": _COUNTED})) == (10, 20, False)


def test_an_answer_without_a_text_may_have_cost_no_tokens() -> None:
    """A prompt that was filtered costs itself alone."""
    assert _read({"prompt_tokens": 12, "completion_tokens": 0}, answered=False) == (12, 0, False)


_COUNT = st.sampled_from(_ABSURD) | st.integers(0, 2 * MOST_TOKENS) | st.integers()
_USAGE = st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), _COUNT)


@given(stated=_USAGE, model=st.text())
def test_whatever_is_stated_can_be_kept_and_counted(stated: dict[str, Any], model: str) -> None:
    """Counts are in their range or unknown, an unknown one is marked, and no metric refuses them."""
    usage = usage_of(stated, model=model, answered=True)
    counts = (usage.prompt_tokens, usage.completion_tokens)
    assert all(one is None or 0 < one <= MOST_TOKENS for one in counts)
    assert usage.maybe_billed or usage.completion_tokens
    assert len(usage.model) <= 200
    assert usage.model.isprintable()
    count(usage)


def test_what_an_earlier_version_saved_can_be_told() -> None:
    """A row with a negative count once ended the schedule worker."""
    assert Usage("m", -1, 2**31 - 1) == Usage("m", None, None, maybe_billed=True)
