"""The body of an answer with status 200 holds activities and cost, or a failure.

Servers agree on the outline of a chat completion and on little else, so it is read field by field, and a field of
another type counts as absent. What decides, in this order: whether it is a completion at all (NoCompletion), how it
ended, whether it refuses, and whether the activities are valid (LlmFailure).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from consumers.generation.activities import Activities
from consumers.generation.choice import Choice, activities_of
from consumers.generation.envelope import Envelope, open_envelope
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.no_completion import NoCompletion, reported, reports
from consumers.generation.usage import count, stated_usage, usage_of
from infra import telemetry, tracing
from streams.jobs.completion import Usage


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
