"""What the body of an answer with status 200 holds: activities and their cost, or why there are none."""

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

from pydantic import BaseModel, ValidationError

from consumers.generation.activities import Activities
from consumers.generation.llm_errors import LlmFailure, Usage
from infra import telemetry
from infra.errors import Permanent, Transient


class NoCompletion(Exception):
    """A body under status 200 that reports an error, or is no chat completion at all.

    Attributes:
        status: the status that it stands for: the one that it names, else 502.
        body: the error that it holds, as JSON; None if it holds none.
        usage: the tokens that it cost all the same.
        maybe_billed: whether it may have cost tokens that it does not name.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = HTTPStatus.BAD_GATEWAY,
        body: object = None,
        usage: Usage | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.usage = usage
        self.maybe_billed = maybe_billed


@dataclass(frozen=True, slots=True)
class Completion:
    """A valid answer and what it cost. `closed_for`: how long the endpoint will take no further call."""

    activities: Activities
    usage: Usage
    closed_for: timedelta | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(BaseModel):
    """The part of a chat completion that we read. The package's own model costs several times as much to fill."""

    model: str = ""
    choices: list[_Choice]
    usage: _Usage | None = None


def read(content: bytes, *, fallback_model: str) -> Completion:
    """Return the activities in the body of an answer, and count its tokens.

    Raises:
        LlmFailure: there are none; its usage holds the tokens if the body names them.
        NoCompletion: the body is not the LLM's answer.
    """
    try:
        answer = _Answer.model_validate_json(content)
    except ValidationError as error:
        raise NoCompletion("the endpoint's answer is no chat completion", maybe_billed=True) from error
    usage = None
    if answer.usage is not None:
        usage = Usage(answer.model or fallback_model, answer.usage.prompt_tokens, answer.usage.completion_tokens)
        telemetry.LLM_TOKENS.labels("prompt").inc(usage.prompt_tokens)
        telemetry.LLM_TOKENS.labels("completion").inc(usage.completion_tokens)
    if not answer.choices:
        raise _invalid("the answer holds no choice", None, usage=usage)
    activities = _activities(answer.choices[0], usage)
    return Completion(activities, usage or Usage(answer.model or fallback_model, 0, 0))


def _activities(choice: _Choice, usage: Usage | None) -> Activities:
    match choice.finish_reason:
        case "length":
            message = "the answer was cut off at its limit (TEAMFIT_MAX_COMPLETION_TOKENS)"
            raise LlmFailure(Permanent("llm_truncated", message), usage=usage, maybe_billed=usage is None)
        case "content_filter":
            message = "the LLM's content filter stopped the answer"
            raise LlmFailure(Permanent("llm_content_filter", message), usage=usage, maybe_billed=usage is None)
    if choice.message.refusal:
        message = "the LLM refused to answer this request"
        raise LlmFailure(Permanent("llm_refusal", message), usage=usage, maybe_billed=usage is None)
    try:
        return Activities.model_validate_json(choice.message.content or "")
    except ValidationError as error:
        raise _invalid("the answer is not three valid activities", error, usage=usage) from error


def _invalid(what: str, error: ValidationError | None, *, usage: Usage | None) -> LlmFailure:
    """Say which fields are wrong, not what stands in them: it may be long or private."""
    if error is not None:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        path = ".".join(str(part) for part in problem["loc"]) or "body"
        more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        what = f"{what} ({path}: {problem['type']}{more})"
    return LlmFailure(Transient("llm_invalid_output", what), usage=usage, maybe_billed=usage is None)
