"""This module turns the `openai` package's errors into ours.

LlmFailure                 one call that gave no activities; `error` says what the stage does about it:
├── Transient              llm_invalid_output; llm_server_error, llm_timeout, llm_connection_lost of one prompt alone
├── Permanent              llm_truncated, llm_refusal, llm_content_filter, llm_prompt_too_long, llm_bad_request
├── Postponed              llm_rate_limited, llm_server_error, … once, while the endpoint answers others
└── DependencyDown("llm")  the account, the configuration, the endpoint or its limit is to blame
`blame` says who is to blame for a refusal, `endpoint` what evidence makes of it, docs/llm.md has the table.
"""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Self

import aiohttp
import httpx2
import openai

from consumers.generation.blame import Verdict, blame
from consumers.generation.no_completion import NoCompletion
from consumers.generation.rate_limits import exhausted_for
from consumers.generation.refusal import Refusal, clean, read_refusal
from infra.errors import DependencyDown, Permanent, Postponed, Transient
from streams.jobs.completion import Usage

_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL, ssl.SSLError)


class LlmFailure(Exception):
    """A call that gave no activities.

    Attributes:
        error: what the delivery policy decides by.
        code: stable, for the record of the attempt.
        usage: the tokens that it cost all the same, when the endpoint said so.
        maybe_billed: whether it may have cost tokens of which we were not told.
        sent: whether the endpoint may have seen the call.
        closed_for: how long the endpoint wants no further calls, from anybody.
        verdict: who is to blame, unless there was an answer to read.
        status: of the answer, if there was one.
        words: what the endpoint said, cleaned. It may repeat what it was asked.
    """

    def __init__(
        self,
        error: Transient | Permanent | Postponed | DependencyDown,
        *,
        code: str | None = None,
        usage: Usage | None = None,
        maybe_billed: bool = False,
        sent: bool = True,
        closed_for: timedelta | None = None,
        verdict: Verdict | None = None,
        status: int | None = None,
        words: str = "",
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.code = code or (error.code if isinstance(error, Transient | Permanent) else "llm_unavailable")
        self.usage = usage
        self.maybe_billed = maybe_billed or (usage is not None and usage.maybe_billed)
        self.sent = sent
        self.closed_for = closed_for
        self.verdict = verdict
        self.status = status
        self.words = words

    def of_prompt(self, code: str, sentence: str) -> Self:
        """Blame the prompt, as far as is known."""
        self.error, self.code = Permanent(code, sentence), code
        self.verdict = Verdict("prompt", code, sentence, certain=False)
        return self


def translate(
    error: openai.OpenAIError | httpx2.InvalidURL | httpx2.TransportError | aiohttp.ClientError | OSError | ValueError,
    *,
    url: str,
    model: str,
) -> LlmFailure:
    """Return the failure that an error of the client means, before any evidence."""
    match error:
        case openai.APIStatusError():
            return _status(error, url, model)
        case openai.APIConnectionError() | httpx2.TransportError() | aiohttp.ClientError() | OSError():
            return _connection(error, url)
        case _:
            # Raised before anything is sent: no credentials, a key or an address that no request can carry.
            return misconfigured(f"no call can be made to {url}: check OPENAI_API_KEY and OPENAI_BASE_URL")


def misconfigured(sentence: str) -> LlmFailure:
    """Return the failure of a call that could not be made with these settings."""
    return _of(Verdict("configuration", "llm_misconfigured", sentence), sent=False)


def of_no_completion(error: NoCompletion, headers: Mapping[str, str], *, url: str, model: str) -> LlmFailure:
    """Return the failure that a body under status 200 reports. It is judged as if under the status that belongs to it.

    Where it names no status its words decide, as under any 4xx; where they say nothing either, its server has failed.
    """
    if error.hint:
        failure = _of(Verdict("configuration", "llm_misconfigured", f"{url} {error.hint}"))
    else:
        failure = _of_words(error, headers, url, model)
    # One that an endpoint has generated and kept costs something too.
    failure.maybe_billed = error.maybe_billed or (failure.maybe_billed and error.usage is None)
    failure.usage = error.usage
    return failure


def _of_words(error: NoCompletion, headers: Mapping[str, str], url: str, model: str) -> LlmFailure:
    refusal = read_refusal(error.status or HTTPStatus.BAD_REQUEST, headers, error.body)
    verdict = blame(refusal, url=url, model=model)
    if error.status is None and verdict.blame == "unknown":
        refusal = read_refusal(HTTPStatus.BAD_GATEWAY, headers, error.body)
        verdict = blame(refusal, url=url, model=model)
        if error.body is None:
            sentence = f"{error}: if it stays so, {url} is not the address of an LLM, so check OPENAI_BASE_URL"
            verdict = replace(verdict, sentence=sentence)
    return _refused(refusal, verdict, headers)


def timed_out(seconds: float) -> LlmFailure:
    """Return the failure of a call that was ended at our own limit."""
    sentence = f"the LLM gave no answer within {seconds:g} s (TEAMFIT_GENERATION_TIMEOUT_S)"
    return _of(Verdict("endpoint", "llm_timeout", sentence), maybe_billed=True)


def cut_off(url: str, usage: Usage | None) -> LlmFailure:
    """Return the failure of a stream that was broken off before its end."""
    sentence = f"{url} broke its answer off"
    failure = _of(Verdict("endpoint", "llm_connection_lost", sentence), maybe_billed=True)
    failure.usage = usage
    return failure


def _connection(error: Exception, url: str) -> LlmFailure:
    """Tell a call that was never sent from one whose answer was lost.

    The package's aiohttp adapter maps both to httpx's ConnectTimeout (`_vendor/httpx_aiohttp/transport.py`), so the
    error of aiohttp underneath decides.
    """
    root = _cause(error)
    if isinstance(root, aiohttp.ClientHttpProxyError):
        sentence = f"a proxy refuses the connection to {url} ({root.status}): check HTTPS_PROXY and NO_PROXY"
        return _of(Verdict("endpoint", "llm_unavailable", sentence), sent=False)
    if isinstance(root, FileNotFoundError | PermissionError):
        what = f"a file for TLS cannot be read ({clean(str(root))})"
        return _of(Verdict("configuration", "llm_misconfigured", f"{what}: check SSL_CERT_FILE"), sent=False)
    if isinstance(root, _NEVER_SENT):
        sentence = f"{url} is not reachable ({type(root).__name__}: {clean(str(root))}): check OPENAI_BASE_URL"
        return _of(Verdict("endpoint", "llm_unavailable", sentence), sent=False)
    if isinstance(root, TimeoutError):
        return _of(Verdict("endpoint", "llm_timeout", f"{url} stopped sending"), maybe_billed=True)
    sentence = f"the connection to {url} was lost before the answer ({type(root).__name__})"
    return _of(Verdict("endpoint", "llm_connection_lost", sentence), maybe_billed=True)


def _cause(error: BaseException) -> BaseException:
    for one in _causes(error):
        if isinstance(one, aiohttp.ClientError):
            return one
    return one


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


def _status(error: openai.APIStatusError, url: str, model: str) -> LlmFailure:
    headers = error.response.headers
    # The package hands on the inner part of a body, without what stands beside it.
    refusal = read_refusal(error.status_code, headers, error.response.content or error.body)
    return _refused(refusal, blame(refusal, url=url, model=model), headers)


def _refused(refusal: Refusal, verdict: Verdict, headers: Mapping[str, str]) -> LlmFailure:
    failure = _of(verdict, status=refusal.status, words=refusal.text)
    if verdict.blame in {"limit", "endpoint"}:
        failure.closed_for = verdict.wait or (
            exhausted_for(headers) if refusal.status == HTTPStatus.TOO_MANY_REQUESTS else None
        )
    if verdict.code == "llm_invalid_output":
        # The endpoint has generated an answer and kept it.
        failure.error, failure.verdict, failure.maybe_billed = Transient(verdict.code, verdict.sentence), None, True
    elif verdict.code == "llm_truncated":
        failure.maybe_billed = True
    return failure


def _of(
    verdict: Verdict, *, maybe_billed: bool = False, sent: bool = True, status: int | None = None, words: str = ""
) -> LlmFailure:
    error: Permanent | DependencyDown
    if verdict.blame in {"prompt", "unknown"}:
        error = Permanent(verdict.code, verdict.sentence)
    else:
        error = DependencyDown("llm", verdict.sentence, retry_after=verdict.wait)
    return LlmFailure(
        error, code=verdict.code, maybe_billed=maybe_billed, sent=sent, verdict=verdict, status=status, words=words
    )
