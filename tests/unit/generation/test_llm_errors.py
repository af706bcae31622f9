"""Each error of the client becomes the class that the delivery policy knows."""

from datetime import timedelta
from unittest.mock import Mock

import aiohttp
import httpx2
import openai
import orjson
import pytest

from consumers.generation.answer import read
from consumers.generation.llm_errors import LlmFailure, of_no_completion, translate
from consumers.generation.no_completion import NoCompletion
from infra.errors import DependencyDown, Permanent, Transient
from streams.jobs.completion import Usage

_REQUEST = httpx2.Request("POST", "http://llm.test/v1/chat/completions")


def _answered(
    status: int, *, code: str | None = None, param: str | None = None, headers: dict[str, str] | None = None
) -> LlmFailure:
    """Translate what the client raises for an error response."""
    kinds: dict[int, type[openai.APIStatusError]] = {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        429: openai.RateLimitError,
    }
    kind = kinds.get(status, openai.InternalServerError if status >= 500 else openai.APIStatusError)
    response = httpx2.Response(status, headers=headers, request=_REQUEST)
    error = kind("some text", response=response, body={"code": code, "param": param, "type": "t"})
    return translate(error, url="http://llm.test/v1", model="m")


@pytest.mark.parametrize(
    ("status", "code", "param", "error", "recorded"),
    [
        (429, "rate_limit_exceeded", None, DependencyDown, "llm_rate_limited"),
        (429, "insufficient_quota", None, DependencyDown, "llm_insufficient_quota"),
        (401, "invalid_api_key", None, DependencyDown, "llm_misconfigured"),
        (403, None, None, Permanent, "llm_bad_request"),
        (404, "model_not_found", None, DependencyDown, "llm_misconfigured"),
        (400, "model_not_found", "model", DependencyDown, "llm_misconfigured"),
        (400, None, "response_format", DependencyDown, "llm_misconfigured"),
        (400, None, "response_format.json_schema", DependencyDown, "llm_misconfigured"),
        (400, "content_filter", None, Permanent, "llm_content_filter"),
        (400, "context_length_exceeded", "messages", Permanent, "llm_prompt_too_long"),
        (413, None, None, Permanent, "llm_prompt_too_long"),
        (422, None, None, Permanent, "llm_bad_request"),
        (408, None, None, DependencyDown, "llm_server_error"),
        (500, None, None, DependencyDown, "llm_server_error"),
        (503, None, None, DependencyDown, "llm_server_error"),
    ],
)
def test_status_and_code_decide(
    status: int, code: str | None, param: str | None, error: type[Exception], recorded: str
) -> None:
    """What is no prompt's fault holds. What may be one is so for the time being: evidence is looked for afterwards."""
    failure = _answered(status, code=code, param=param)
    assert isinstance(failure.error, error)
    assert failure.code == recorded
    assert not failure.maybe_billed


def test_a_configuration_error_names_the_variables_to_check() -> None:
    """The operator reads which settings to look at."""
    assert "OPENAI_API_KEY" in str(_answered(401).error)
    assert "TEAMFIT_COMPLETION_FORMAT" in str(_answered(400, param="response_format").error)


@pytest.mark.parametrize(
    ("root", "error", "recorded", "maybe_billed"),
    [
        (aiohttp.ClientConnectorError(Mock(), OSError(111, "refused")), DependencyDown, "llm_unavailable", False),
        (aiohttp.ConnectionTimeoutError(), DependencyDown, "llm_unavailable", False),
        (aiohttp.ClientHttpProxyError(Mock(), (), status=407), DependencyDown, "llm_unavailable", False),
        (aiohttp.ClientHttpProxyError(Mock(), (), status=502), DependencyDown, "llm_unavailable", False),
        (FileNotFoundError(2, "No such file or directory", "/nope.pem"), DependencyDown, "llm_misconfigured", False),
        (PermissionError(13, "Permission denied", "/etc/ca.pem"), DependencyDown, "llm_misconfigured", False),
        (aiohttp.ServerDisconnectedError(), DependencyDown, "llm_connection_lost", True),
        (aiohttp.ClientOSError(104, "reset"), DependencyDown, "llm_connection_lost", True),
        (aiohttp.ClientPayloadError(), DependencyDown, "llm_connection_lost", True),
        (aiohttp.SocketTimeoutError(), DependencyDown, "llm_timeout", True),
    ],
)
def test_what_happened_to_the_connection_decides(
    root: aiohttp.ClientError | OSError, error: type[Exception], recorded: str, *, maybe_billed: bool
) -> None:
    """The adapter calls a refused and a lost connection the same; only the second may have been billed.

    A proxy that refuses to connect, and a file that TLS needs, were told as an answer that was lost and paid for.
    """
    between = httpx2.ConnectTimeout("")
    between.__cause__ = root
    raised = openai.APITimeoutError(_REQUEST)
    raised.__cause__ = between
    failure = translate(raised, url="http://llm.test/v1", model="m")
    assert isinstance(failure.error, error)
    assert (failure.code, failure.maybe_billed) == (recorded, maybe_billed)


def test_missing_credentials_are_a_configuration_error() -> None:
    """The client refuses to be made without a key: the stage holds and says which variable is missing."""
    failure = translate(openai.OpenAIError("no key"), url="http://llm.test/v1", model="m")
    assert isinstance(failure.error, DependencyDown)
    assert "OPENAI_API_KEY" in str(failure)


@pytest.mark.parametrize(("status", "code"), [(429, "llm_rate_limited"), (503, "llm_server_error")])
def test_an_endpoint_that_says_when_to_come_back_closes_the_gate(status: int, code: str) -> None:
    """What limits everybody is no job's failure: nobody calls until then."""
    failure = _answered(status, headers={"retry-after": "7"})
    assert isinstance(failure.error, DependencyDown)
    assert (failure.code, failure.closed_for) == (code, timedelta(seconds=7))


def test_a_used_up_limit_says_when_to_come_back_too() -> None:
    """Without `Retry-After`, a 429 may name the limit's reset."""
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s"}
    assert _answered(429, headers=headers).closed_for == timedelta(seconds=2)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"details": [{"retryDelay": "3.5s"}]}, 3.5),
        ({"details": [{"retryDelay": {"seconds": "30", "nanos": 0}}]}, 30),
        ({"retry_after": 1.5}, 1.5),
        ({"retryAfter": 20}, 20),
        ({"retry-after": "20"}, 20),
        ({"retry_after_ms": 2_500}, 2.5),
        ({"retryAfterMs": "2500"}, 2.5),
        ({"metadata": {"retry_after_seconds": 12}}, 12),
        ({"type": "usage_limit_reached", "resets_in_seconds": 123, "resets_at": 4_000_000_000}, 123),
        ({"resets_at": 4_000_000_000}, 3_600),
        ({"resetTime": "2096-10-02T07:06:40Z"}, 3_600),
        ({"nextAccessTime": "2096-Oct-02 07:06:40+0000 UTC"}, 3_600),
        ({"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4000000000000"}}}, 3_600),
        ({"metadata": {"headers": {"Retry-After": "5", "Authorization": "Bearer sk-abc123"}}}, 5),
        ({"resets_at": "soon"}, None),
        ({"retryDelay": {"seconds": "soon"}}, None),
    ],
)
def test_a_body_may_name_when_to_come_back(error: dict[str, object], seconds: float | None) -> None:
    """Each has a name of its own for it: Google, OpenAI, gateways, and OpenRouter, which hands on the headers."""
    body = orjson.dumps({"error": {"message": "Rate limit exceeded"} | error})
    response = httpx2.Response(429, content=body, request=_REQUEST)
    failure = translate(openai.RateLimitError("x", response=response, body=None), url="http://llm.test/v1", model="m")
    assert failure.closed_for == (None if seconds is None else timedelta(seconds=seconds))
    assert "sk-abc123" not in failure.words


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (429, {"retry-after": "0"}), (503, {}), (529, {})])
def test_an_endpoint_that_names_no_time_closes_no_gate(status: int, headers: dict[str, str]) -> None:
    """It is held until a probe is answered; the gate is for times that an endpoint names."""
    failure = _answered(status, headers=headers)
    assert isinstance(failure.error, DependencyDown)
    assert failure.closed_for is None


def _body(**choice: object) -> bytes:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return orjson.dumps({"model": "m", "choices": [{"message": {}, **choice}], "usage": usage})


@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        (_body(finish_reason="length", message={"content": "{"}), Permanent, "llm_truncated"),
        (_body(finish_reason="content_filter"), Permanent, "llm_content_filter"),
        (_body(message={"refusal": "no"}), Permanent, "llm_refusal"),
        (_body(message={"content": "rubbish"}), Transient, "llm_invalid_output"),
        (_body(message={"content": '{"activities": []}'}), Transient, "llm_invalid_output"),
        (_body(message={"content": None}), Transient, "llm_invalid_output"),
        (
            b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}, "model": "m"}',
            Transient,
            "llm_invalid_output",
        ),
    ],
)
def test_an_answer_without_activities_is_still_counted(body: bytes, error: type[Exception], code: str) -> None:
    """Cut off, refused or rubbish: each has its own outcome, and its tokens are known."""
    with pytest.raises(LlmFailure) as raised:
        read(body, fallback_model="asked-for")
    assert isinstance(raised.value.error, error)
    assert raised.value.code == code
    assert raised.value.usage == Usage("m", 3, 4)
    assert not raised.value.maybe_billed


def test_an_answer_that_is_no_completion_may_have_been_billed() -> None:
    """A proxy's page with status 200 is the endpoint's failure, and says nothing about the cost."""
    with pytest.raises(NoCompletion) as raised:
        read(b"<html>busy</html>", fallback_model="asked-for")
    assert raised.value.maybe_billed
    failure = of_no_completion(raised.value, {}, url="http://llm.test/v1", model="m")
    assert (failure.code, failure.status, failure.maybe_billed) == ("llm_server_error", 502, True)


def test_what_the_model_wrote_is_not_in_the_message() -> None:
    """Errors reach logs and customers: they name the field, never its content."""
    with pytest.raises(LlmFailure) as raised:
        read(_body(message={"content": '{"activities": "SECRET"}'}), fallback_model="m")
    assert "activities" in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_a_redirect_is_a_configuration_error_that_names_the_address() -> None:
    """The prompt goes to no host that nobody has configured; the operator reads where the endpoint is now."""
    failure = _answered(307, headers={"location": "https://elsewhere.test/v1"})
    assert isinstance(failure.error, DependencyDown)
    assert "https://elsewhere.test/v1" in str(failure)
    assert "OPENAI_BASE_URL" in str(failure)
