"""The body of an answer with status 200 holds activities and cost, or a failure.

Servers agree on the outline of a chat completion and on little else, so it is read field by field, and a field of
another type counts as absent. What decides, in this order: whether it is a completion at all (NoCompletion), how it
ended, whether it refuses, and whether the activities are valid (LlmFailure).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from consumers.generation.activities import Activities
from consumers.generation.choice import Choice, activities_of
from consumers.generation.envelope import Envelope, open_envelope
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.no_completion import NoCompletion, reported, reports
from infra import telemetry, tracing
from streams.jobs.completion import Usage, token_count


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
        NoCompletion: the body is not the LLM's answer, or that of another API without activities.
    """
    envelope = open_envelope(content)
    if envelope.problem:
        raise NoCompletion(envelope.problem, maybe_billed=True)
    document, choices = envelope.document, envelope.choices or []
    model = document.get("model")
    usage = usage_of(
        stated_usage(document, [part for choice in choices for part in (choice.fields, choice.message)]),
        model=model if isinstance(model, str) and model.strip() else fallback_model,
        answered=any(choice.says_something for choice in choices),
    )
    if not choices or reports(document):
        raise reported(document, usage)
    count(usage)
    tracing.note_finish([choice.fields.get("finish_reason") for choice in choices])
    activities, kinds = _first_valid(envelope, choices, usage)
    for kind in kinds:
        telemetry.LLM_UNPACKED.labels(kind).inc()
    return Completion(activities, usage)


def _first_valid(envelope: Envelope, choices: Sequence[Choice], usage: Usage) -> tuple[Activities, set[str]]:
    """Return the activities of the first choice that has some, and how they were packed."""
    failures: list[tuple[Choice, LlmFailure | NoCompletion]] = []
    for choice in choices:
        try:
            activities, kinds = activities_of(choice, envelope.document, usage)
        except (LlmFailure, NoCompletion) as failure:
            failures.append((choice, failure))
            continue
        return activities, kinds | envelope.kinds | ({"choices"} if failures else set())
    _, told = next((one for one in failures if one[0].says_something), failures[0])
    if envelope.hint and isinstance(told, LlmFailure) and told.code == "llm_invalid_output":
        # Such an API takes no form: what has to be mended is the address.
        raise NoCompletion(
            f"{told}; the endpoint {envelope.hint}",
            hint=envelope.hint,
            holds_json=any(choice.holds_json for choice in choices),
            usage=usage,
            maybe_billed=usage.maybe_billed,
        ) from told
    raise told


# As OpenAI, the Responses API, Gemini, Bedrock, Ollama and llama.cpp name them, in small letters alone: gateways write
# the same words in the spelling of their own language.
_PROMPT: Final = (
    *("prompttokens", "inputtokens", "prompttokencount", "inputtokencount", "prompttokenscount"),
    *("promptevalcount", "promptn", "tokensevaluated", "inputtexttokencount"),
)
_COMPLETION: Final = (
    *("completiontokens", "outputtokens", "candidatestokencount", "outputtokencount", "completiontokencount"),
    *("completiontokenscount", "generatedtokencount", "generationtokencount", "generatedtokens"),
    *("evalcount", "predictedn", "tokenspredicted"),
)
_TOTAL: Final = ("totaltokens", "totaltokencount", "totaltokenscount")
# Anthropic's and llama.cpp's prompts that were read from a cache are in no other count.
_CACHED: Final = ("cachecreationinputtokens", "cachereadinputtokens", "cachen")
_OTHER_THAN_LETTERS: Final = re.compile("[^a-z]")
_MOST_FIELDS: Final = 100
_DEEPEST: Final = 2


def stated_usage(document: Mapping[str, Any], parts: Sequence[Mapping[str, Any]] = ()) -> object:
    """Return the place where a body states its cost.

    It is `usage`, or the first other place with a count to be believed.

    Args:
        document: the body.
        parts: its choices and their messages.
    """
    usage = document.get("usage")
    places = (usage, *(part.get("usage") for part in parts), *_inner(document, 0), document)
    return next((place for place in places if isinstance(place, dict) and _counts_anything(place)), usage)


def _inner(document: Mapping[str, Any], depth: int) -> Iterator[object]:
    """Yield the objects in a body: `x_groq.usage`, `timings`, `usageMetadata`, `result.usage`."""
    for part in document.values():
        if isinstance(part, dict):
            yield part.get("usage")
            yield part
            if depth < _DEEPEST:
                yield from _inner(part, depth + 1)


def _counts_anything(place: Mapping[str, Any]) -> bool:
    counts = _by_letters(place)
    return any(_count(counts, names) for names in (_PROMPT, _COMPLETION, _TOTAL))


def _by_letters(place: Mapping[str, Any]) -> Mapping[str, Any]:
    return {_OTHER_THAN_LETTERS.sub("", name.lower()): value for name, value in islice(place.items(), _MOST_FIELDS)}


def usage_of(stated: object, *, model: str, answered: bool) -> Usage:
    """Return the cost that an answer states.

    The total counts where it holds more than the two others, as reasoning that some servers leave out of both, and
    where one of them is missing. A total alone is recorded as tokens of the answer, which are the dearer ones.

    Args:
        stated: the `usage` of the answer, or what stands for it, of any type.
        answered: whether the answer holds a text, which costs at least one token.
    """
    counts: Mapping[str, Any] = _by_letters(stated) if isinstance(stated, dict) else {}
    # No prompt is empty: a zero means that it was not counted.
    prompt = _count(counts, _PROMPT) or None
    if prompt is not None and "prompttokens" not in counts:
        prompt = token_count(prompt + sum(_count(counts, (name,)) or 0 for name in _CACHED))
    completion = _count(counts, _COMPLETION)
    if completion == 0 and answered:
        completion = None
    total = _count(counts, _TOTAL) or None
    if total is None:
        return Usage(model, prompt, completion, maybe_billed=prompt is None)
    # A count that is there and wrong makes the total doubtful too.
    if prompt is None and completion is None and _silent(counts, _PROMPT) and _silent(counts, _COMPLETION):
        return Usage(model, None, total)
    if prompt is None and completion is not None and _silent(counts, _PROMPT) and total > completion:
        prompt = total - completion
    more = prompt is not None and total > prompt + (completion or 0)
    if prompt is not None and more and (completion is not None or _silent(counts, _COMPLETION)):
        completion = total - prompt
    return Usage(model, prompt, completion, maybe_billed=prompt is None)


def _count(counts: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := token_count(counts.get(name))) is not None), None)


def _silent(counts: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return not any(counts.get(name) for name in names)


def count(usage: Usage) -> None:
    """Add a call to the metrics."""
    telemetry.LLM_TOKENS.labels("prompt").inc(usage.prompt_tokens or 0)
    telemetry.LLM_TOKENS.labels("completion").inc(usage.completion_tokens or 0)
    if usage.maybe_billed:
        telemetry.LLM_USAGE_UNKNOWN.inc()
