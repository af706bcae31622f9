"""Where the `openai` package's errors become ours. Types, status codes and error codes decide, never message texts.

LlmFailure                 one call that gave no activities; `error` says what the stage does about it:
├── Transient              llm_rate_limited, llm_timeout, llm_connection_lost, llm_server_error, llm_invalid_output
├── Permanent              llm_truncated, llm_refusal, llm_content_filter, llm_bad_request
└── DependencyDown("llm")  not reachable, not paid for, not configured as the endpoint needs it, or to be left alone for
                           a while, as it says (llm_rate_limited, llm_server_error)
docs/llm.md has the table.
"""

from datetime import timedelta
from http import HTTPStatus

import aiohttp
import openai

from consumers.generation.rate_limits import exhausted_for, retry_after
from infra.errors import DependencyDown, Permanent, Transient
from infra.settings import CompletionFormat
from streams.completion import Usage

_CONTENT_FILTERS = frozenset({"content_filter", "content_policy_violation"})
_LOCATION_CHARS = 200


class LlmFailure(Exception):
    """A call that gave no activities.

    Attributes:
        error: what the delivery policy decides by.
        code: stable, for the record of the attempt.
        usage: the tokens that it cost all the same, when the endpoint said so.
        maybe_billed: whether it may have cost tokens that nobody told us of.
        sent: whether the endpoint may have seen the call.
        closed_for: how long the endpoint wants no further calls, from anybody.
    """

    def __init__(
        self,
        error: Transient | Permanent | DependencyDown,
        *,
        code: str | None = None,
        usage: Usage | None = None,
        maybe_billed: bool = False,
        sent: bool = True,
        closed_for: timedelta | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.code = code or ("llm_unavailable" if isinstance(error, DependencyDown) else error.code)
        self.usage = usage
        self.maybe_billed = maybe_billed or (usage is not None and usage.maybe_billed)
        self.sent = sent
        self.closed_for = closed_for


def translate(
    error: openai.OpenAIError | aiohttp.ClientError | TimeoutError, *, completion_format: CompletionFormat
) -> LlmFailure:
    """Return the failure that an error of the client means."""
    match error:
        case openai.APIStatusError():
            return _status(error, completion_format)
        case openai.APIResponseValidationError():
            return LlmFailure(Transient("llm_invalid_output", f"the LLM's answer is malformed: {error}"))
        case openai.APIConnectionError() | aiohttp.ClientError() | TimeoutError():
            return _connection(error)
        case _:
            # Raised before anything is sent: no credentials, a base URL that is none.
            message = f"configuration error: {error}; check OPENAI_API_KEY and OPENAI_BASE_URL"
            return LlmFailure(DependencyDown("llm", message), code="llm_misconfigured", sent=False)


def timed_out(seconds: float) -> LlmFailure:
    """Return the failure of a call that was ended at our own limit."""
    message = f"the LLM gave no answer within {seconds:g} s (TEAMFIT_GENERATION_TIMEOUT_S)"
    return LlmFailure(Transient("llm_timeout", message), maybe_billed=True)


def _connection(error: Exception) -> LlmFailure:
    """Tell a call that was never sent from one whose answer was lost.

    The package's aiohttp adapter maps both to httpx's ConnectTimeout (`_vendor/httpx_aiohttp/transport.py`), so the
    error of aiohttp underneath decides.
    """
    root = _cause(error)
    if isinstance(root, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        message = f"the LLM endpoint is not reachable ({type(root).__name__}: {root}); check OPENAI_BASE_URL"
        return LlmFailure(DependencyDown("llm", message), sent=False)
    if isinstance(root, TimeoutError):
        return LlmFailure(Transient("llm_timeout", "the LLM stopped sending"), maybe_billed=True)
    message = f"the connection to the LLM was lost before its answer ({type(root).__name__})"
    return LlmFailure(Transient("llm_connection_lost", message), maybe_billed=True)


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None and not isinstance(error, aiohttp.ClientError):
        error = error.__cause__
    return error


def _status(error: openai.APIStatusError, completion_format: CompletionFormat) -> LlmFailure:
    wait = retry_after(error.response.headers)
    status = error.status_code
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _too_many(error, wait or exhausted_for(error.response.headers))
    if status < HTTPStatus.BAD_REQUEST:
        location = error.response.headers.get("location", "")[:_LOCATION_CHARS]
        message = (
            f"configuration error: the LLM endpoint redirects ({status}) to {location!r}, which is not followed; "
            "set OPENAI_BASE_URL to the address that it means"
        )
        return LlmFailure(DependencyDown("llm", message), code="llm_misconfigured")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND} or _model_unknown(error):
        message = (
            f"configuration error: the LLM endpoint answered {status} ({error.code or 'no code'}); "
            "check OPENAI_API_KEY, OPENAI_BASE_URL and TEAMFIT_MODEL"
        )
        return LlmFailure(DependencyDown("llm", message), code="llm_misconfigured")
    if status == HTTPStatus.BAD_REQUEST and (error.param or "").startswith("response_format"):
        message = (
            f"configuration error: the LLM endpoint does not take TEAMFIT_COMPLETION_FORMAT={completion_format}; "
            "set it to json_object_with_schema or json_object"
        )
        return LlmFailure(DependencyDown("llm", message), code="llm_misconfigured")
    if error.code in _CONTENT_FILTERS:
        return LlmFailure(Permanent("llm_content_filter", "the LLM's content filter refused the request"))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT}:
        # Some servers answer an unknown format with a 500, which nothing tells from any other.
        message = (
            f"the LLM endpoint failed ({status}); if it always does, it may not take "
            f"TEAMFIT_COMPLETION_FORMAT={completion_format}"
        )
        if status == HTTPStatus.SERVICE_UNAVAILABLE and wait:
            return _come_back("llm_server_error", message, wait)
        return LlmFailure(Transient("llm_server_error", message, retry_after=wait))
    message = f"the LLM endpoint refused the request ({status}, {error.code or error.type or 'no code'})"
    return LlmFailure(Permanent("llm_bad_request", message))


def _too_many(error: openai.APIStatusError, wait: timedelta | None) -> LlmFailure:
    if error.code == "insufficient_quota":
        message = "the LLM account has no credit left (insufficient_quota); top it up"
        down = DependencyDown("llm", message, retry_after=wait)
        return LlmFailure(down, code="llm_insufficient_quota", closed_for=wait)
    message = "the LLM's rate limit is reached (429)"
    if wait:
        return _come_back("llm_rate_limited", message, wait)
    return LlmFailure(Transient("llm_rate_limited", message))


def _come_back(code: str, message: str, wait: timedelta) -> LlmFailure:
    return LlmFailure(DependencyDown("llm", message, retry_after=wait), code=code, closed_for=wait)


def _model_unknown(error: openai.APIStatusError) -> bool:
    return error.code in {"model_not_found", "invalid_api_key"} or error.param == "model"
