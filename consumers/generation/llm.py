"""One LLM call turns a prompt into three validated activities or an LlmFailure."""

import asyncio
import time
from dataclasses import replace
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

import aiohttp
import httpx2
import openai
import orjson
from openai.types.chat import ChatCompletionMessageParam

from consumers.generation import body
from consumers.generation.allowance import Allowance
from consumers.generation.answer import Completion, read
from consumers.generation.dialect import Dialect
from consumers.generation.llm_errors import LlmFailure, misconfigured, of_no_completion, timed_out, translate
from consumers.generation.no_completion import NoCompletion
from consumers.generation.prompt import harmless_messages, messages
from infra import telemetry
from infra.settings import Settings
from streams.jobs.completion import Usage

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
        settings: model, address, and limits.
        connections: calls in flight at most; the client keeps as many connections as can be in use, and as many again
            for those that are being closed.
    """

    def __init__(self, settings: Settings, *, connections: int) -> None:
        self._settings = settings
        self._url = endpoint_of(settings)
        self._connections = connections
        self.allowance = Allowance()
        self._client: openai.AsyncOpenAI | None = None

    async def complete(self, user: str, dialect: Dialect, *, limit_s: float | None = None) -> Completion:
        """Make one call with the customer's words; nothing is retried here.

        Args:
            user: the user's message.
            dialect: how the endpoint is asked.
            limit_s: longest it may take, if not as long as the settings allow.

        Raises:
            LlmFailure: there are no activities; it says why, and what is known of the cost.
        """
        began = self.allowance.clock()
        try:
            answer = await self._call(messages(dialect, user), dialect, limit_s)
        except LlmFailure as failure:
            if failure.status == HTTPStatus.TOO_MANY_REQUESTS:
                self.allowance.refused()
            raise
        closed_for = self.allowance.answered(answer.headers, began)
        try:
            completion = read(answer.content, fallback_model=self._settings.model)
        except NoCompletion as error:
            raise self._reported(error, answer) from error
        except LlmFailure as failure:
            failure.closed_for = closed_for
            raise
        return replace(completion, closed_for=closed_for) if closed_for else completion

    async def probe(self, dialect: Dialect, *, limit_s: float) -> Usage | None:
        """Ask a harmless thing, to see whether the endpoint answers; any chat completion will do.

        Returns:
            What it cost, if the endpoint says so.

        Raises:
            LlmFailure: it does not.
        """
        answer = await self._call(harmless_messages(), dialect, limit_s)
        try:
            return read(answer.content, fallback_model=self._settings.model).usage
        except NoCompletion as error:
            if error.holds_json:
                return error.usage  # it does as it is told, in another API's form
            raise self._reported(error, answer) from error
        except LlmFailure as failure:
            return failure.usage  # no three activities, as was to be expected

    async def _call(
        self, asked: list[ChatCompletionMessageParam], dialect: Dialect, limit_s: float | None
    ) -> httpx2.Response:
        fields = dialect.request(max_tokens=self._settings.max_completion_tokens)
        call = orjson.dumps({"model": self._settings.model, "messages": asked, **fields})
        limit_s = self._settings.generation_timeout_s if limit_s is None else limit_s
        limit = asyncio.timeout(limit_s)
        started = time.perf_counter()
        try:
            client = self._client or self._open()
            async with limit:
                # Not `chat.completions.create`: it compares its arguments with their types key by key, which took as
                # long as all the rest of a call. What is sent is the same.
                return await client.post("/chat/completions", content=call, cast_to=httpx2.Response)
        except (openai.OpenAIError, httpx2.InvalidURL, aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise timed_out(limit_s) from error
            raise translate(error, url=self._url, model=self._settings.model) from error
        finally:
            telemetry.LLM_SECONDS.observe(time.perf_counter() - started)

    def _reported(self, error: NoCompletion, answer: httpx2.Response) -> LlmFailure:
        return of_no_completion(error, answer.headers, url=self._url, model=self._settings.model)

    def _open(self) -> openai.AsyncOpenAI:
        key = self._settings.openai_api_key
        # A key that is read from a file ends in a line break, which no header can carry.
        api_key: str | None = key.get_secret_value().strip() if key else None
        if not api_key and self._settings.openai_base_url is None:
            raise misconfigured("there is no key for OpenAI: set OPENAI_API_KEY")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise misconfigured("OPENAI_API_KEY holds a character that no header can carry")
        base_url = httpx2.URL((self._settings.openai_base_url or _OPENAI).strip())
        if base_url.scheme not in {"http", "https"} or not base_url.host:
            raise misconfigured(f"OPENAI_BASE_URL is {self._url}, which is no http:// or https:// address")
        query = dict(parse_qsl(base_url.query.decode()))
        # Azure's dated interface takes the key in a header of its own: docs/providers.md.
        headers = {"api-key": api_key or _NO_KEY} if "api-version" in query else {}
        self._client = openai.AsyncOpenAI(
            api_key=api_key or _NO_KEY,
            # Named, or the package would read the variable by itself, blank or not.
            base_url=base_url.copy_with(query=None, fragment=None),
            default_query=query or None,
            max_retries=0,
            default_headers={"Accept-Encoding": body.ACCEPT_ENCODING, **headers},
            # Only connecting has a limit of its own; the whole call is bounded in `_call`.
            timeout=openai.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            http_client=openai.DefaultAioHttpClient(
                limits=httpx2.Limits(max_connections=2 * self._connections, keepalive_expiry=_KEEPALIVE_S),
                # Elsewhere the prompt and the key would be shown to a host that was not configured.
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
    """Return the endpoint's address as the fleet names it, without its secrets."""
    configured = (settings.openai_base_url or _OPENAI).strip()
    try:
        return str(httpx2.URL(configured).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx2.InvalidURL:
        return "an address that is none"
