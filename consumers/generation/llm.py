"""One LLM call turns a prompt into three validated activities or an LlmFailure."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
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
from consumers.generation.hold import OPENAI, endpoint_of
from consumers.generation.llm_errors import LlmFailure, cut_off, misconfigured, of_no_completion, timed_out, translate
from consumers.generation.no_completion import NoCompletion
from consumers.generation.pieces import Pieces
from consumers.generation.prompt import harmless_messages, messages
from infra import telemetry, tracing
from infra.settings import Settings
from streams.jobs.completion import Usage

_CONNECT_TIMEOUT_S = 10.0
# Below what servers usually allow an idle connection (uvicorn, which serves many compatible endpoints: 5 s), so that a
# call is not sent into a connection that is just being closed.
_KEEPALIVE_S = 4.0
# A server that has sent the last of a stream closes it at once.
_END_S = 1.0
# One that has said how an answer ended and what it cost has nothing more to say, but may keep the connection open.
_QUIET_S = 5.0
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
        self._endings: set[asyncio.Task[None]] = set()

    async def complete(
        self, user: str, dialect: Dialect, *, limit_s: float | None = None, pieces: Pieces | None = None
    ) -> Completion:
        """Make one call with the customer's words; nothing is retried here.

        Args:
            user: the user's message.
            dialect: how the endpoint is asked.
            limit_s: longest it may take, if not as long as the settings allow.
            pieces: takes the answer while it comes, and has it asked for as a stream. None: it is asked for whole.

        Raises:
            LlmFailure: there are no activities; it says why, and what is known of the cost.
        """
        with tracing.chat(self._settings.model, self._url, user) as chat:
            try:
                completion = await self._complete(user, dialect, limit_s, pieces)
            except LlmFailure as failure:
                chat.answered(failure.usage)
                raise
            chat.answered(completion.usage)
            return completion

    async def _complete(self, user: str, dialect: Dialect, limit_s: float | None, pieces: Pieces | None) -> Completion:
        began = self.allowance.clock()
        try:
            answer = await self._call(messages(dialect, user), dialect, limit_s, pieces)
        except LlmFailure as failure:
            if failure.status == HTTPStatus.TOO_MANY_REQUESTS:
                self.allowance.refused()
            raise
        closed_for = self._closed_for(answer, began)
        try:
            completion = self._completion(answer, pieces)
        except NoCompletion as error:
            raise self._reported(error, answer) from error
        except LlmFailure as failure:
            if pieces is not None and pieces.is_cut_off and failure.code == "llm_invalid_output":
                raise cut_off(self._url, failure.usage) from failure
            failure.closed_for = closed_for
            raise
        self.allowance.used((completion.usage.prompt_tokens or 0) + (completion.usage.completion_tokens or 0))
        return replace(completion, closed_for=closed_for) if closed_for else completion

    def _completion(self, answer: "_Answer", pieces: Pieces | None) -> Completion:
        if pieces is not None and pieces.is_too_long:
            raise NoCompletion(f"the endpoint's answer is longer than {body.MOST_BYTES:,} bytes", maybe_billed=True)
        try:
            return read(answer.content, fallback_model=self._settings.model)
        except NoCompletion as error:
            # What was written before the error may have to be paid for.
            if pieces is not None and pieces.says_something and error.usage is None:
                error.maybe_billed = True
            raise

    def _closed_for(self, answer: "_Answer", began: float) -> timedelta | None:
        """Return how long the endpoint takes no further call; a stream's headers come long before its end."""
        closed_for = self.allowance.answered(answer.headers, began, answer.headers_at)
        since = timedelta(seconds=time.perf_counter() - answer.headers_at)
        return closed_for - since if closed_for is not None and closed_for > since else None

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
        self,
        asked: list[ChatCompletionMessageParam],
        dialect: Dialect,
        limit_s: float | None,
        pieces: Pieces | None = None,
    ) -> "_Answer":
        fields = dialect.request(max_tokens=self._settings.max_completion_tokens)
        if pieces is not None:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        call = orjson.dumps({"model": self._settings.model, "messages": asked, **fields})
        limit_s = self._settings.generation_timeout_s if limit_s is None else limit_s
        limit = asyncio.timeout(limit_s)
        started = time.perf_counter()
        try:
            client = self._client or self._open()
            async with limit:
                return await (_whole(client, call) if pieces is None else self._by_piece(client, call, pieces))
        except (
            *(openai.OpenAIError, httpx2.InvalidURL, httpx2.TransportError),
            *(aiohttp.ClientError, OSError, ValueError),
        ) as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise timed_out(limit_s) from error
            raise translate(error, url=self._url, model=self._settings.model) from error
        finally:
            telemetry.LLM_SECONDS.observe(time.perf_counter() - started, tracing.exemplar())

    async def _by_piece(self, client: openai.AsyncOpenAI, call: bytes, pieces: Pieces) -> "_Answer":
        """Read an answer while it comes. A connection that is lost after the answer's end is no fault."""
        options: openai.RequestOptions = {"headers": body.BY_PIECE}
        cast_to = openai.AsyncAPIResponse[httpx2.Response]
        response = (await client.post(_PATH, content=call, cast_to=cast_to, options=options)).http_response
        headers_at = time.perf_counter()
        chunks = response.aiter_raw()
        try:
            async for chunk in _while_it_speaks(chunks, pieces):
                if not pieces.add(chunk) or pieces.is_done:
                    break
            pieces.has_come = not pieces.is_too_long
        except httpx2.TransportError:
            if not pieces.is_stream or pieces.is_cut_off:
                raise
        finally:
            if pieces.is_done:
                ending = asyncio.create_task(_to_the_end(response, chunks), name="end of a stream")
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
            else:
                await response.aclose()
        return _Answer(pieces.end(), response.headers, headers_at)

    def _reported(self, error: NoCompletion, answer: "_Answer") -> LlmFailure:
        return of_no_completion(error, answer.headers, url=self._url, model=self._settings.model)

    def check_settings(self) -> None:
        """Pass if a call can be made with the settings. Raises LlmFailure when none can."""
        self._address()

    def _address(self) -> tuple[httpx2.URL, str | None]:
        """Return the base URL and the key, if there is one."""
        key = self._settings.openai_api_key
        # A key that is read from a file ends in a line break, which no header can carry.
        api_key: str | None = key.get_secret_value().strip() if key else None
        if not api_key and self._settings.openai_base_url is None:
            raise misconfigured("there is no key for OpenAI: set OPENAI_API_KEY")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise misconfigured("OPENAI_API_KEY holds a character that no header can carry")
        named = f"OPENAI_BASE_URL is {self._url}, which is no http:// or https:// address"
        try:
            base_url = httpx2.URL((self._settings.openai_base_url or OPENAI).strip())
        except httpx2.InvalidURL as error:
            raise misconfigured(f"{named}: {error}") from error
        if base_url.scheme not in {"http", "https"} or not base_url.host:
            raise misconfigured(named)
        return base_url, api_key

    def _open(self) -> openai.AsyncOpenAI:
        base_url, api_key = self._address()
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
        if self._endings:
            await asyncio.wait(self._endings)
        client, self._client = self._client, None
        if client is not None:
            await client.close()


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer's body, and its headers with when they came."""

    content: bytes
    headers: Mapping[str, str]
    headers_at: float


# Not `chat.completions.create`: it compares its arguments with their types key by key, which took as long as all the
# rest of a call. What is sent is the same.
_PATH: Final = "/chat/completions"


async def _whole(client: openai.AsyncOpenAI, call: bytes) -> _Answer:
    response = await client.post(_PATH, content=call, cast_to=httpx2.Response)
    return _Answer(response.content, response.headers, time.perf_counter())


async def _while_it_speaks(chunks: AsyncIterator[bytes], pieces: Pieces) -> AsyncIterator[bytes]:
    """Yield what comes; nothing is waited for long once all has been said."""
    with suppress(StopAsyncIteration):
        while not pieces.says_all:
            yield await anext(chunks)
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(_QUIET_S):
                    chunk = await anext(chunks)
                yield chunk


async def _to_the_end(response: httpx2.Response, chunks: AsyncIterator[bytes]) -> None:
    """Read what follows a stream's last event, so that the next call can use the connection."""
    try:
        with suppress(TimeoutError, httpx2.TransportError):
            async with asyncio.timeout(_END_S):
                async for _ in chunks:
                    continue
    finally:
        await response.aclose()
