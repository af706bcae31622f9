"""This module finds the cause of a refused call. It is the account, configuration, endpoint, limit, or this one prompt.

A status alone does not tell: no credit comes as 402, 403, 429 or 400, a flagged prompt as 400 or 403, a wrong key as
400 or 401. So codes and words decide, then the status; the first that fits counts. Where nothing tells, the verdict is
`unknown`, and evidence decides: see `consumers.generation.endpoint`.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

from consumers.generation.blame_words import (
    AWAY,
    AWAY_CODES,
    BLOCKED,
    BLOCKED_CODES,
    DENIED,
    DENIED_CODES,
    FLAGGED,
    FLAGGED_CODES,
    KEY,
    KEY_CODES,
    LIMIT,
    LIMIT_CODES,
    NO_CREDIT,
    NO_CREDIT_CODES,
    NO_JSON,
    NO_JSON_CODES,
    NOT_BOUGHT,
    TRUNCATED,
    words,
)
from consumers.generation.declining import declines
from consumers.generation.refusal import Refusal
from consumers.generation.request_words import (
    API_VERSION,
    BOUND,
    LONG,
    LONG_CODES,
    MODEL,
    MODEL_CODES,
    NO_ADDRESS,
    NOT_TAKEN,
    PARTS,
    TOO_LARGE_EVER,
    TOO_MANY_ASKED,
)

Blame: TypeAlias = Literal["account", "configuration", "endpoint", "limit", "prompt", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is to blame, in a sentence too.

    Attributes:
        code: stable, for the record of the attempt and the customer.
        sentence: what is wrong and what to do about it; without anything that is foreign or secret.
        wait: how long the endpoint asks to be left alone.
        certain: whether it needs no evidence. A prompt's fault that is uncertain may be a lock-out of everybody.
        refused: the parts of the request's form that the endpoint does not take: see `dialect`.
    """

    blame: Blame
    code: str
    sentence: str
    wait: timedelta | None = None
    certain: bool = True
    refused: frozenset[str] = frozenset()


_FORM_STATUSES: Final = frozenset({400, 404, 415, 422, 500, 501})
# Cloudflare's AI gateway has a guard before it that answers 424, Portkey one that answers 446.
_REFUSING: Final = frozenset({400, 403, 422, 424, 446, 451})
_NOT_NOW: Final = frozenset({408, 409, 421, 423, 424, 425})
_NO_COMPLETIONS: Final = frozenset({404, 405, 410})
_OF_PROXIES: Final = frozenset(range(440, 500)) - _REFUSING
_NO_LIMITS: Final = frozenset({HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def blame(refusal: Refusal, *, url: str, model: str) -> Verdict:
    """Return who is to blame for this answer. Raises nothing; the sentence names the address and the model."""
    status, said = refusal.status, _Words(refusal)
    named = f"({refusal.named})"
    if status < HTTPStatus.BAD_REQUEST and status >= HTTPStatus.MULTIPLE_CHOICES:
        sentence = (
            f"{url} redirects {named} to {refusal.location!r}, which is not followed: "
            "set OPENAI_BASE_URL to the address that it means"
        )
        return Verdict("endpoint", "llm_misconfigured", sentence)
    if not refusal.is_page:
        verdict = _by_words(refusal, said, named, url, model)
        if verdict is not None:
            return verdict
    return _by_status(refusal, named, url, model)


class _Words:
    """Looks patterns up: in the codes, where one must be the whole code, and anywhere in the sentences."""

    def __init__(self, refusal: Refusal) -> None:
        self._codes = [code.replace("-", "_").replace(" ", "_") for code in refusal.codes]
        # Some put the sentence where the code belongs.
        self._text = " ".join([refusal.text, *(code for code in refusal.codes if " " in code)])

    def code(self, codes: re.Pattern[str]) -> bool:
        return any(codes.fullmatch(code) for code in self._codes)

    def any(self, codes: re.Pattern[str] | None, text: re.Pattern[str]) -> bool:
        return (codes is not None and self.code(codes)) or bool(text.search(self._text))


def _by_words(refusal: Refusal, said: _Words, named: str, url: str, model: str) -> Verdict | None:
    """Return what the words say. Those of a 5xx are about the request alone: an endpoint that fails is what it is."""
    status = refusal.status
    if status == HTTPStatus.TOO_MANY_REQUESTS and said.any(None, TOO_LARGE_EVER):
        return _too_long(named)
    verdict = _of_account(refusal, said, named, url) or _of_content(refusal, said, named)
    if verdict is not None:
        return verdict
    if status in {400, 401, 403} and said.any(KEY_CODES, KEY):
        return _wrong_key(named, url)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and said.any(AWAY_CODES, AWAY):
        return _away(refusal, named, url)
    if status in _REFUSING and declines(refusal.text):
        return Verdict("prompt", "llm_refusal", f"the LLM refused to answer this request {named}", certain=False)
    return _by_request(refusal, said, named, url, model)


def _of_account(refusal: Refusal, said: _Words, named: str, url: str) -> Verdict | None:
    """Return that the account has no credit, has used up a limit, or is blocked."""
    status = refusal.status
    is_limit, is_outage = status == HTTPStatus.TOO_MANY_REQUESTS, status >= HTTPStatus.INTERNAL_SERVER_ERROR
    # Rate limits speak of billing too, to sell more; an account without credit names no time at which that changes.
    sells = is_limit and (refusal.wait or said.any(None, LIMIT))
    if said.code(NO_CREDIT_CODES) or (not is_outage and said.any(None, NO_CREDIT) and not sells):
        return _no_credit(refusal, named, url)
    if is_limit or (not is_outage and status not in _NO_LIMITS and said.any(LIMIT_CODES, LIMIT)):
        return _limit(refusal, named)
    if status in {400, 402, 403} and said.any(None, NOT_BOUGHT):
        return _no_credit(refusal, named, url)
    if not is_outage and said.any(BLOCKED_CODES, BLOCKED):
        sentence = f"the account behind OPENAI_API_KEY is blocked at {url} {named}: its region, or it is suspended"
        return Verdict("account", "llm_account_blocked", sentence)
    return None


def _of_content(refusal: Refusal, said: _Words, named: str) -> Verdict | None:
    """Return that a filter refused the prompt, or that the endpoint keeps an answer which it finds no use for."""
    status = refusal.status
    if said.code(FLAGGED_CODES) or (status in _REFUSING and said.any(None, FLAGGED)):
        certain = status in {400, 422} and said.code(FLAGGED_CODES)
        return Verdict(
            "prompt", "llm_content_filter", f"the LLM's content filter refused the request {named}", certain=certain
        )
    if said.any(NO_JSON_CODES, NO_JSON):
        return Verdict("prompt", "llm_invalid_output", f"the endpoint found no valid JSON in the answer {named}")
    if said.any(None, TRUNCATED):
        sentence = f"the endpoint cut the answer off at TEAMFIT_MAX_COMPLETION_TOKENS and kept it {named}"
        return Verdict("prompt", "llm_truncated", sentence)
    return None


def _by_request(refusal: Refusal, said: _Words, named: str, url: str, model: str) -> Verdict | None:
    """Return what the words say about the request: too long, for a model that is unknown, in a form that is refused."""
    status = refusal.status
    if said.any(LONG_CODES, LONG) or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return _too_long(named)
    names_limit = any(PARTS[limit].search(one) for limit in _LIMITS for one in refusal.parameters)
    if said.any(None, TOO_MANY_ASKED) or (names_limit and said.any(None, BOUND)):
        sentence = f"model {model} at {url} gives no answer of TEAMFIT_MAX_COMPLETION_TOKENS {named}: set it lower"
        return Verdict("configuration", "llm_misconfigured", sentence)
    refused = _refused_parts(refusal, said)
    if refused:
        sentence = (
            f"model {model} at {url} does not take {', '.join(sorted(refused))} {named}: "
            "set TEAMFIT_COMPLETION_FORMAT=auto, or to a form that it takes"
        )
        return Verdict(
            "configuration", "llm_misconfigured", sentence, certain=bool(refusal.parameters), refused=refused
        )
    if said.code(MODEL_CODES) or (
        status in {400, 403, 404, 422} and ("model" in refusal.parameters or said.any(None, MODEL))
    ):
        sentence = f"model {model} is unknown at {url} {named}: check TEAMFIT_MODEL and OPENAI_BASE_URL"
        return Verdict("configuration", "llm_misconfigured", sentence)
    if said.any(None, NO_ADDRESS):
        return _no_address(named, url)
    if said.any(None, API_VERSION):
        sentence = f"{url} asks for another API version {named}: set ?api-version=… at the end of OPENAI_BASE_URL"
        return Verdict("configuration", "llm_misconfigured", sentence)
    if status in {400, 403} and said.any(DENIED_CODES, DENIED):
        return Verdict("account", "llm_misconfigured", f"{url} does not let this key call it {named}: check its rights")
    return None


def _refused_parts(refusal: Refusal, said: _Words) -> frozenset[str]:
    if refusal.status not in _FORM_STATUSES:
        return frozenset()
    parts = {part for part, names in PARTS.items() if any(names.search(one) for one in refusal.parameters)}
    if not parts and said.any(NOT_TAKEN, NOT_TAKEN):
        parts = {part for part, names in PARTS.items() if said.any(names, names)}
    elif "response_format" in parts and said.any(None, PARTS["bounds"]):
        parts.add("bounds")
    # "Use 'max_completion_tokens' instead of 'max_tokens'" names the cure beside the cause.
    if {"max_tokens", "max_completion_tokens"} <= parts:
        parts -= {"max_completion_tokens"} if said.any(None, words("use '?`?max_completion_tokens")) else {"max_tokens"}
    if "bounds" in parts and "response_format" not in parts:
        parts.discard("bounds")
    return frozenset(parts)


def _by_status(refusal: Refusal, named: str, url: str, model: str) -> Verdict:
    status = refusal.status
    if status == HTTPStatus.PAYMENT_REQUIRED:
        return _no_credit(refusal, named, url)
    if status == HTTPStatus.UNAUTHORIZED:
        return _wrong_key(named, url)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _limit(refusal, named)
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return Verdict("configuration", "llm_misconfigured", f"a proxy before {url} asks for credentials {named}")
    if status in _NO_COMPLETIONS:
        return _no_address(named, url)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # A proxy says so with a page.
        return Verdict("prompt", "llm_prompt_too_long", f"the prompt is too long for {url} {named}", certain=False)
    # From 440 on they are no standard's, but balancers' and proxies' of their own.
    is_outage = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _NOT_NOW or status in _OF_PROXIES
    if is_outage or refusal.is_page or status < HTTPStatus.BAD_REQUEST:
        return _away(refusal, named, url)
    sentence = f"the LLM endpoint {url} refuses the request for model {model} {named}"
    return Verdict("unknown", "llm_bad_request", sentence, certain=False)


def _no_address(named: str, url: str) -> Verdict:
    sentence = f"{url} has no /chat/completions {named}: check OPENAI_BASE_URL (it often ends in /v1) and TEAMFIT_MODEL"
    return Verdict("configuration", "llm_misconfigured", sentence)


def _too_long(named: str) -> Verdict:
    return Verdict("prompt", "llm_prompt_too_long", f"the prompt is too long for the model {named}", certain=False)


def _away(refusal: Refusal, named: str, url: str) -> Verdict:
    page = " with a page for people, as gateways do" if refusal.is_page else ""
    sentence = f"the LLM endpoint {url} fails{page} {named}: nothing to do here but to wait, or to look at its status"
    return Verdict("endpoint", "llm_server_error", sentence, wait=refusal.wait)


def _no_credit(refusal: Refusal, named: str, url: str) -> Verdict:
    sentence = f"the LLM account at {url} has no credit or is not active {named}: top it up, or check its billing"
    return Verdict("account", "llm_insufficient_quota", sentence, wait=refusal.wait)


def _wrong_key(named: str, url: str) -> Verdict:
    return Verdict("account", "llm_misconfigured", f"the key is wrong at {url} {named}: check OPENAI_API_KEY")


def _limit(refusal: Refusal, named: str) -> Verdict:
    return Verdict("limit", "llm_rate_limited", f"the LLM's rate limit is reached {named}", wait=refusal.wait)
