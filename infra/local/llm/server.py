"""The routes: `POST /v1/chat/completions`, `GET /v1/models`, and `/control` for tests."""

import asyncio
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.local.llm.composer import compose
from infra.local.llm.limits import Limiter
from infra.local.llm.misbehaviour import Control, Mode, Order
from infra.local.llm.streamed import abort, send, send_half

MODEL = "teamfit-offline-composer"

# A prompt may hold a megabyte of materials, and JSON escapes can make several of one.
_MAX_REQUEST_BYTES = 16 * 1024 * 1024
_CHARS_PER_TOKEN = 4
_RUBBISH = "Sure! Here are three activities your team will love:\n1. {title: Trust fall, duration: some}\n2."
_CONTROL = web.AppKey("control", Control)
_LIMITER: web.AppKey[Limiter | None] = web.AppKey("limiter")


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class _Format(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] | None = None


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class _Call(BaseModel):
    """The part of a chat completion request that is looked at."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[_Message] = Field(min_length=1)
    response_format: _Format = _Format()
    stream: bool = False
    stream_options: _StreamOptions | None = None


class _ApiError(Exception):
    """An answer in the shape of OpenAI's errors."""

    def __init__(
        self, status: int, message: str, *, kind: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def create_app(*, latency_s: float = 0.0, limiter: Limiter | None = None) -> web.Application:
    """Make the application; every answer takes `latency_s` unless `/control` says otherwise.

    With a limiter it is a strict provider: what goes beyond is answered 429.
    """
    app = web.Application(client_max_size=_MAX_REQUEST_BYTES)
    app[_CONTROL] = Control(latency_s)
    app[_LIMITER] = limiter
    app.router.add_post("/v1/chat/completions", _complete)
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/control", _report)
    app.router.add_get("/control/invoice", _invoice)
    app.router.add_put("/control", _obey)
    app.router.add_delete("/control", _reset)
    return app


def _json(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


async def _models(_: web.Request) -> web.Response:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "teamfit (offline)"}
    return _json({"object": "list", "data": [model]})


async def _report(request: web.Request) -> web.Response:
    return _json(request.app[_CONTROL].report())


async def _invoice(request: web.Request) -> web.Response:
    return _json([line.model_dump() for line in request.app[_CONTROL].invoice])


async def _obey(request: web.Request) -> web.Response:
    try:
        order = Order.model_validate_json(await request.read())
    except ValidationError as error:
        return _json({"error": str(error)}, status=422)
    request.app[_CONTROL].obey(order)
    return _json(request.app[_CONTROL].report())


async def _reset(request: web.Request) -> web.Response:
    request.app[_CONTROL].reset()
    return _json(request.app[_CONTROL].report())


async def _send(
    request: web.Request, call: _Call, answer: dict[str, Any], mode: Mode, latency_s: float
) -> web.StreamResponse:
    limiter = request.app[_LIMITER]
    headers = limiter.headers() if limiter else {}
    if call.stream:
        asks = call.stream_options is not None and call.stream_options.include_usage
        states_usage, is_cut = asks and mode is not Mode.STREAM_WITHOUT_USAGE, mode is Mode.CUT
        return await send(
            request, answer, latency_s=latency_s, headers=headers, states_usage=states_usage, is_cut=is_cut
        )
    if mode is Mode.CUT:
        await send_half(request, orjson.dumps(answer))
    return _json(answer, headers=headers)


async def _complete(request: web.Request) -> web.StreamResponse:
    control, limiter = request.app[_CONTROL], request.app[_LIMITER]
    tally = control.tally
    body = await request.read()
    retry_after = control.order.retry_after
    named = request.headers.get("X-Offline-Mode")
    mode, latency_s = control.take(Mode(named) if named in set(Mode) else None, body)
    tally.in_flight += 1
    try:
        call = _parse(body)
        refusal = _refusal(mode, call)
        streams = call.stream and refusal is None and mode is not Mode.RESET
        if limiter is None and latency_s and not streams:
            await asyncio.sleep(latency_s)
        if mode is Mode.RESET:
            abort(request)
        if refusal is not None:
            raise refusal
        answer = _answer(call, mode)
        # A provider counts a call when it comes, and a refusal is quick.
        if limiter is not None and not limiter.take(answer["usage"]["total_tokens"]):
            return _beyond(limiter, control)
        if limiter is not None and not streams:
            await asyncio.sleep(latency_s)
        try:
            return await _send(request, call, answer, mode, latency_s)
        finally:
            # Whoever has gone away meanwhile has to pay all the same.
            control.bill(body, answer["usage"], streamed=streams)
    except _ApiError as error:
        asked = mode in {Mode.RATE_LIMITED, Mode.UNAVAILABLE} and retry_after is not None
        headers = {"Retry-After": f"{retry_after:g}"} if asked else {}
        return _json(error.body, status=error.status, headers=headers)
    finally:
        tally.in_flight -= 1


def _beyond(limiter: Limiter, control: Control) -> web.Response:
    control.tally.beyond_limits = limiter.refused
    message = f"Rate limit reached for {MODEL}: {limiter.requests} requests and {limiter.tokens} tokens per minute."
    error = _ApiError(429, message, kind="requests", code="rate_limit_exceeded")
    return _json(error.body, status=error.status, headers={"Retry-After": f"{limiter.back_off_s():.3f}"})


def _parse(body: bytes) -> _Call:
    try:
        call = _Call.model_validate(orjson.loads(body))
    except (ValidationError, orjson.JSONDecodeError) as error:
        raise _ApiError(400, f"We could not read the request: {error}", kind="invalid_request_error") from error
    if call.response_format.type == "json_schema" and not call.response_format.json_schema:
        message = "Missing required parameter: 'response_format.json_schema'."
        raise _ApiError(400, message, kind="invalid_request_error", param="response_format.json_schema")
    if call.response_format.type == "json_object" and not any("json" in m.text.lower() for m in call.messages):
        # OpenAI's own rule, and an easy one to break unseen against a laxer server.
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise _ApiError(400, message, kind="invalid_request_error", param="messages")
    return call


def _refusal(mode: Mode, call: _Call) -> _ApiError | None:
    """Return the error that the mode asks for, if it asks for one."""
    if mode is Mode.RATE_LIMITED:
        message = f"Rate limit reached for {MODEL} (told so by /control)."
        return _ApiError(429, message, kind="requests", code="rate_limit_exceeded")
    if mode is Mode.SERVER_ERROR:
        return _ApiError(500, "The server had an error (told so by /control).", kind="server_error")
    if mode is Mode.UNAVAILABLE:
        return _ApiError(503, "The server is overloaded (told so by /control).", kind="server_error")
    if mode is Mode.BAD_KEY:
        message = "Incorrect API key provided (told so by /control)."
        return _ApiError(401, message, kind="invalid_request_error", code="invalid_api_key")
    if mode is Mode.NO_STREAM and call.stream:
        message = "This model does not stream (told so by /control)."
        return _ApiError(400, message, kind="invalid_request_error", param="stream")
    if mode is Mode.SCHEMA_UNSUPPORTED and call.response_format.type == "json_schema":
        message = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
        return _ApiError(400, message, kind="invalid_request_error", param="response_format")
    return None


def _answer(call: _Call, mode: Mode) -> dict[str, Any]:
    prompt_chars = sum(len(message.text) for message in call.messages)
    content, finish_reason, refusal = _content(call, mode)
    usage = {
        "prompt_tokens": math.ceil(prompt_chars / _CHARS_PER_TOKEN),
        "completion_tokens": math.ceil(len(content or refusal or "") / _CHARS_PER_TOKEN),
    }
    return {
        "id": f"chatcmpl-offline-{secrets.token_hex(8)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }


def _content(call: _Call, mode: Mode) -> tuple[str | None, str, str | None]:
    """Return the answer's text, why it ended, and the refusal instead of a text if there is one."""
    if mode is Mode.REFUSAL:
        return None, "stop", "I'm sorry, but I can't help with that request."
    if mode is Mode.CONTENT_FILTER:
        return "", "content_filter", None
    if mode is Mode.RUBBISH:
        return _RUBBISH, "stop", None
    count = {Mode.TWO_ACTIVITIES: 2, Mode.FOUR_ACTIVITIES: 4}.get(mode, 3)
    # The system message is the pipeline's own wording; what the team wants is in the others.
    activities = compose(_text_of(call.messages), count=count)
    if call.response_format.type == "text":
        content = "\n\n".join(f"{item['title']}: {item['description']}" for item in activities)
    else:
        content = orjson.dumps({"activities": activities}).decode()
    if mode is Mode.TRUNCATED:
        return content[: len(content) // 2], "length", None
    return content, "stop", None


def _text_of(messages: Sequence[_Message]) -> str:
    return "\n".join(message.text for message in messages if message.role not in {"system", "developer"})
