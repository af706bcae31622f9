"""A run that failed, was rejected or cancelled has one code. Customers see it as a job's `error_code`.

Stages raise them where they arise; a test holds this list against what they raise, and against docs/front-ends.md.
"""

from collections.abc import Mapping
from typing import Final

ERROR_CODES: Final[Mapping[str, str]] = {
    "cancelled": "The job was withdrawn; `error_message` has the reason.",
    "organization_not_found": "There is no such organization.",
    "team_not_found": "The organization has no such team, or has it no more.",
    "subscription_required": "The organization has no active paid subscription.",
    "trust_too_low": "The organization's trust score is too low.",
    "quota_exceeded": "The month's quota is used up.",
    "budget_exceeded": "The month's budget is used up.",
    "too_many_requests": "The organization asked too fast, or had too many jobs waiting.",
    "run_at_too_far": "`run_at` is more than 366 days ahead.",
    "spend_cap_reached": "The job has used as many tokens as one job may.",
    "llm_refusal": "The LLM declined the wish. Another wording may help.",
    "llm_content_filter": "The LLM's content filter stopped the wish or its answer. Another wording may help.",
    "llm_prompt_too_long": "The wish and the team's materials are longer than the LLM takes.",
    "llm_no_endpoint": "No LLM endpoint may be asked for this organization.",
    "llm_price_missing": "The organization has a budget, and the LLM's model has no price.",
    "llm_truncated": "The answer was longer than it may be. A simpler wish may help.",
    "llm_invalid_output": "Each try brought something other than three activities.",
    "llm_bad_request": "The LLM's endpoint did not take the request.",
    "llm_misconfigured": "The LLM's endpoint was not there at each try.",
    "llm_rate_limited": "The LLM's endpoint was too busy at each try.",
    "llm_server_error": "The LLM's endpoint failed at each try.",
    "llm_timeout": "The LLM did not answer in time at each try.",
    "llm_connection_lost": "The connection to the LLM was lost at each try.",
    "timeout": "A stage did not finish in time at each try.",
    "invalid_event": "The request is no valid event; `error_message` names the field. Mend it and send it again.",
    "poison_event": "The job's event ended the worker that handled it, several times.",
    "dead_lettered": "The job's event could not be processed.",
    "expired": "The job stood still for too long, and its request is lost.",
    "interrupted": "An operator started the job again; its next run follows.",
    "internal_error": "A bug on our side.",
}
"""Each code, and what it means to a customer."""

# What is said of these is about the customer's own job, and written for the customer.
_TOLD_IN_FULL: Final = frozenset({"team_not_found", "run_at_too_far", "invalid_event", "poison_event", "interrupted"})


def sentence_for_customer(code: str, message: str) -> str:
    """Return what a customer reads as a job's `error_message`.

    An error's own words are for operators: they name addresses, models and settings. They stay in the failed event and
    in the log.

    Args:
        code: how the job ended.
        message: the error's own words.
    """
    if code in _TOLD_IN_FULL and message:
        return message
    return ERROR_CODES.get(code, ERROR_CODES["internal_error"])
