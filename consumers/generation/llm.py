"""One call to the LLM: a prompt goes in, three validated activities or an LlmFailure come out."""

import asyncio
import time
from dataclasses import replace
from typing import Final

import aiohttp
import httpx2
import openai
import orjson
from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.completion_create_params import ResponseFormat
from openai.types.shared_params import ResponseFormatJSONObject, ResponseFormatJSONSchema

from consumers.generation import body
from consumers.generation.activities import SCHEMA
from consumers.generation.answer import Completion, NoCompletion, read
from consumers.generation.llm_errors import LlmFailure, timed_out, translate
from consumers.generation.rate_limits import exhausted_for
from infra import telemetry
from infra.settings import CompletionFormat, Settings

_CONNECT_TIMEOUT_S = 10.0
# Below what servers usually allow an idle connection (uvicorn, which serves many compatible endpoints: 5 s), so that a
# call is not sent into a connection that is just being closed.
_KEEPALIVE_S = 4.0
_OPENAI: Final = "https://api.openai.com/v1"
# Some endpoints need no key, but the package does.
_NO_KEY: Final = "no-key"


class Llm:
    """The configured endpoint. Its client is made at the first call, in the event loop that makes it.

    Args:
        settings: model, address, format and limits.
        connections: calls in flight at most; the client keeps as many connections as can be in use, and as many again
            for those that are being closed.
    """

    def __init__(self, settings: Settings, *, connections: int) -> None:
        self._settings = settings
        self._connections = connections
        self._client: openai.AsyncOpenAI | None = None
        self._format = _response_format(settings.completion_format)

    async def complete(self, messages: list[ChatCompletionMessageParam]) -> Completion:
        """Make one call; nothing is retried here.

        Raises:
            LlmFailure: there are no activities; it says why, and what is known of the cost.
        """
        started = time.perf_counter()
        try:
            answer = await self._call(messages)
        finally:
            telemetry.LLM_SECONDS.observe(time.perf_counter() - started)
        closed_for = exhausted_for(answer.headers)
        try:
            completion = read(answer.content, fallback_model=self._settings.model)
        except NoCompletion as error:
            raise self._reported(error, answer) from error
        except LlmFailure as failure:
            failure.closed_for = closed_for
            raise
        return replace(completion, closed_for=closed_for) if closed_for else completion

    async def _call(self, messages: list[ChatCompletionMessageParam]) -> httpx2.Response:
        call = orjson.dumps(
            {
                "model": self._settings.model,
                "messages": messages,
                "response_format": self._format,
                "max_completion_tokens": self._settings.max_completion_tokens,
            }
        )
        limit_s = self._settings.generation_timeout_s
        limit = asyncio.timeout(limit_s)
        try:
            client = self._client or self._open()
            async with limit:
                # Not `chat.completions.create`: it compares its arguments with their types key by key, which took as
                # long as all the rest of a call. What is sent is the same.
                return await client.post("/chat/completions", content=call, cast_to=httpx2.Response)
        except (openai.OpenAIError, aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise timed_out(limit_s) from error
            raise translate(error, completion_format=self._settings.completion_format) from error

    def _reported(self, error: NoCompletion, answer: httpx2.Response) -> LlmFailure:
        """Return the failure that a body reports, as if it had come under the status that belongs to it."""
        response = httpx2.Response(error.status, headers=answer.headers, request=answer.request)
        failure = translate(
            openai.APIStatusError(str(error), response=response, body=error.body),
            completion_format=self._settings.completion_format,
        )
        failure.usage, failure.maybe_billed = error.usage, error.maybe_billed
        return failure

    def _open(self) -> openai.AsyncOpenAI:
        key = self._settings.openai_api_key
        if key is None and self._settings.openai_base_url is not None:
            api_key: str | None = _NO_KEY
        else:
            # Without a key for OpenAI itself the package says so, and we say it to the operator.
            api_key = key.get_secret_value() if key else None
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            # Named, or the package would read the variable by itself, blank or not.
            base_url=self._settings.openai_base_url or _OPENAI,
            max_retries=0,
            default_headers={"Accept-Encoding": body.ACCEPT_ENCODING},
            # Only connecting has a limit of its own; the whole call is bounded in `_call`.
            timeout=openai.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            http_client=openai.DefaultAioHttpClient(
                limits=httpx2.Limits(max_connections=2 * self._connections, keepalive_expiry=_KEEPALIVE_S),
                # Elsewhere the prompt and the key would be shown to a host that nobody has configured.
                follow_redirects=False,
                event_hooks={"response": [body.bound]},
            ),
        )
        return self._client

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def endpoint_of(settings: Settings) -> str:
    """Return the endpoint's address as the fleet names it, without what may be secret in it."""
    return str(httpx2.URL(settings.openai_base_url or _OPENAI).copy_with(userinfo=b"", query=None, fragment=None))


def _response_format(completion_format: CompletionFormat) -> ResponseFormat:
    match completion_format:
        case "json_schema":
            return ResponseFormatJSONSchema(
                type="json_schema", json_schema={"name": "activities", "strict": True, "schema": SCHEMA}
            )
        case "json_object" | "json_object_with_schema":
            return ResponseFormatJSONObject(type="json_object")
