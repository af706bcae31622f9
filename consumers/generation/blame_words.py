"""The words by which providers say why they refuse a call.

`…_CODES` are whole machine-readable words; the others stand anywhere in a sentence. All are in lower case. Where they
were read: docs/providers.md.
"""

import re
from typing import Final


def words(*patterns: str) -> re.Pattern[str]:
    """Return a pattern that finds any of these."""
    return re.compile("|".join(patterns))


NO_CREDIT_CODES: Final = words(
    r"insufficient_(user_)?(quota|balance|credits?|funds)",
    r"billing_\w+",
    r"payment_required",
    r"credits?_(exhausted|required)",
    r"exceeded_current_quota\w*",
    r"account_?overdue\w*",
    r"arrearage",
    r"out_of_credits?",
    r"insufficient_\w*quota",
    r"quota_exhausted",
    r"budget_exceeded",
    r"1113",  # Zhipu
    r"base_resp_1008",
)
NO_CREDIT: Final = words(
    (
        r"(insufficient|not enough|no|negative|low|run out of|out of|exhausted|"
        r"used all)\b[\w\s]{0,24}\b(balance|credits?|funds)\b"
    ),
    r"\b(balance|credits?|funds)\b[\w\s]{0,24}(insufficient|too low|exhausted|depleted|used up)",
    r"(check|update|add|set ?up|enable|your) (your |a |an )?(plan and )?(billing|payment)",
    r"spending limit",
    r"budget (has been |was |is )?exceeded",
    r"your specified api usage limits?",
    r"requires billing",
    r"billing (to be|is not|not) enabled",
    r"prepaid",
    r"top[- ]?up",
    r"purchase (more )?credits",
    r"overdue",
    r"余额不足",
    r"欠费",
)
KEY_CODES: Final = words(
    r"(invalid|incorrect|missing|expired|wrong)_?(api)?_?(key|token|credentials?)",
    r"api_?key_?(invalid|expired|missing|not_found)",
    r"unauthenticated",
    r"unauthori[sz]ed",
    r"invalid_authentication\w*",
    r"authentication_(error|failed)",
    r"token_expired",
    r"access_?denied_?key",
    r"base_resp_(1004|2049)",
)
KEY: Final = words(
    (
        r"(api|access|secret|subscription)[ _-]?key[\w\s]{0,40}(not valid|invalid|incorrect|expired|missing|"
        r"required|not found|wrong|revoked)"
    ),
    (
        r"(invalid|incorrect|no|missing|wrong|expired|malformed|valid)( \w+){0,2} (api|access|"
        r"subscription)[ _-]?key"
    ),
    r"authenticat",
    r"unauthori[sz]ed",
    r"(invalid|expired|missing) (bearer |access |auth )?token",
    r"no cookie auth credentials",
    r"security token[\w\s]{0,40}(expired|invalid)",
)
BLOCKED_CODES: Final = words(
    r"unsupported_country\w*",
    r"account_(suspended|deactivated|disabled|banned|locked)",
    r"user_(suspended|banned|deactivated)",
    r"organization_(restricted|suspended|disabled)",
    r"access_terminated\w*",
    r"consumer_suspended",
    r"service_disabled",
    r"region_\w+",
    r"111[02]|1121",  # Zhipu
)
BLOCKED: Final = words(
    (
        r"(country|region|territory|location)[\w\s,]{0,40}(not supported|unsupported|not available|restricted|"
        r"blocked)"
    ),
    r"not (available|supported) in your (country|region)",
    (
        r"(account|organi[sz]ation|project|user|key|access|team)\b[\w\s]{0,24}(suspended|deactivated|disabled|"
        r"banned|restricted|locked|terminated)"
    ),
    r"ip( address)?\b[\w\s]{0,24}not (allowed|authorized|whitelisted)",
)
MODEL_CODES: Final = words(
    (
        r"model_?(not_?found|not_?exist|not_available|not_supported|decommissioned|terms_required|deprecated|"
        r"permission_blocked\w*)\w*"
    ),
    r"(unknown|invalid|unsupported|no_such)_model\w*",
    r"deployment_?not_?found",
    r"model_not_open",
    r"model_not_loaded",
    r"1211",  # Zhipu
)
MODEL: Final = words(
    (
        r"\bmodels?\b[^.]{0,160}?(not found|does(n't| not) exist|not exist|is not available|no longer|"
        r"decommissioned|not loaded|not a valid|is not supported\b(?! (response|when|with this (param|"
        r"value)))|retired|not a chat model)"
    ),
    r"(unknown|invalid|no such|unrecogni[sz]ed|unsupported|not a valid) model\b",
    r"not a valid model id",
    r"no models? loaded",
    r"no endpoints found",
    r"no allowed providers",
    r"failed to load model",
    r"try pulling it",
    r"do(es)?(n't| not) have access to (the )?model",
    r"deployment[\w\s]{0,40}does not exist",
)
FLAGGED_CODES: Final = words(
    r"content_?(filter\w*|policy\w*|blocked|moderation\w*|safety\w*)",
    r"moderation\w*",
    r"responsibleaipolicyviolation",
    r"data_?inspection_?failed",
    r"prohibited_content",
    r"safety",
    r"blocked_content",
    r"prompt_blocked",
    r"input_moderat\w*",
    r"risk_control\w*",
    r"sensitive\w*",
    r"cyber_policy\w*",
    r"content_violation",
    r"invalid_prompt",
    r"flagged",
    r"sexual",
    r"violence",
    r"hate",
    r"nsfw\w*",
    r"guardrail\w*",
    r"hooks_failed",  # Portkey
    r"1301",  # Zhipu
    r"base_resp_102[67]",
)
FLAGGED: Final = words(
    (
        r"(content|prompt|input|message|request|text|query|conversation)\b[^.]{0,60}?(violat|flagged|"
        r"was filtered|moderat|inappropriate|harmful|unsafe|sensitive|prohibited|disallowed|not allowed by)"
    ),
    r"(violat\w*|against|triggering)\b[^.]{0,40}?(content|usage|safety|acceptable|policy|policies|guidelines)",
    r"content (management )?(policy|filter)",
    r"safety (system|filter|reasons|settings)",
    r"flagged (as|for|by)",
    r"requires moderation",
    r"content exists risk",
    r"\bnsfw\b",
    r"敏感|不安全|违规|违反",
)
LONG_CODES: Final = words(
    r"context_?(length|window|size)\w*",
    r"exceed\w*_context\w*",
    (
        r"(prompt|input|request|string|message|payload)_?(is_)?(too_(long|large)|above_max_length|"
        r"length_exceeded)\w*"
    ),
    r"string_above_max_length",
    r"tokens_limit_reached",
    r"max_tokens_exceeded",
    r"request_entity_too_large",
    r"request_too_large",
    r"1261",  # Zhipu
    r"base_resp_1039",
)
LONG: Final = words(
    r"context (length|window|size)",
    r"maximum (input|prompt|sequence)? ?(length|tokens)[^.]{0,60}exceed",
    r"(prompt|input|request|messages?|payload|body)\b[^.]{0,40}?too (long|large|big)",
    r"too (many|long)[^.]{0,20}(input |prompt )?tokens",
    r"reduce (the |your )?(length|message|prompt|input)",
    r"exceeds?\b[^.]{0,40}(token|context|length) (limit|count|window|size)",
    r"maximum number of (input )?tokens",
    r"inputs?`? tokens",
    r"longer than (the )?(model|maximum)",
    r"length exceeds\b[^.]{0,30}context",
    r"max_model_len",
    r"token count[^.]{0,40}exceeds",
    r"entity too large",
)
TOO_MANY_ASKED: Final = words(
    (
        r"max(imum)?[_ ](completion[_ ]|output[_ ]|new[_ ])?tokens?\b[^.]{0,120}?(too (large|high|big)|"
        r"at most|less than|must be|should be|<=|exceed|greater than|range)"
    ),
    (
        r"(too (large|high|big)|at most|supports at most|valid range)[^.]{0,60}?(completion tokens|"
        r"max(imum)?[_ ](completion[_ ]|output[_ ])?tokens)"
    ),
)
# LM Studio says so under status 200.
NO_ADDRESS: Final = words(
    r"unexpected endpoint", r"(no|unknown|invalid) (such )?(route|endpoint|path)\b", r"cannot post "
)
NO_JSON_CODES: Final = words(
    r"json_validate_failed",
    r"failed_generation",
    r"output_parse\w*",
    r"json_validation_failed",
)
LIMIT_CODES: Final = words(
    r"rate_?limit\w*",
    r"too_many_requests",
    r"resource_exhausted",
    r"throttl\w*",
    r"requests",
    r"tokens",
    r"queue_exceeded",
    r"concurrency\w*",
    r"engine_overloaded\w*",
    r"130[2-5]",  # Zhipu
    r"base_resp_(1002|1041)",
)
LIMIT: Final = words(
    r"rate[ -]?limit",
    r"too many requests",
    r"(requests|tokens) per (minute|second|hour|day)",
    r"throttl",
    r"concurren\w+ limit",
    r"out of call volume",
)
# Parts of the request, as `dialect` knows them, and how refusals name them.
PARTS: Final[dict[str, re.Pattern[str]]] = {
    "max_completion_tokens": words(
        r"max_completion_tokens",
        r"maxcompletiontokens",
    ),
    "max_tokens": words(
        r"\bmax_tokens\b",
    ),
    "bounds": words(
        r"min_?items",
        r"max_?items",
        r"\bminimum\b",
        r"\bmaximum\b",
        r"min_?length",
        r"max_?length",
    ),
    "response_format": words(
        r"response_?format",
        r"json_?schema",
        r"json_?object",
        r"json[ _]mode",
        r"structured[ _]outputs?",
        r"guided[_ ]\w+",
        r"grammar",
        r"\bschema\b",
    ),
    "system": words(
        r"system[ _](role|message|prompt|instruction)s?",
        r"role\W{1,4}system",
        r"roles must alternate",
        r"developer instruction",
    ),
}
NOT_TAKEN: Final = words(
    r"not (be )?(supported|permitted|allowed|available|enabled|implemented|recogni[sz]ed|accepted|a valid)",
    r"un(supported|known|recogni[sz]ed|expected|available)",
    r"(does|do|is|are|must|should|can)( not|n't)\b",
    r"cannot",
    r"invalid",
    r"extra_forbidden",
    r"literal_error",
    r"extra inputs",
    r"instead",
    r"failed to (parse|compile)",
    r"must alternate",
    r"must (be|contain)",
    r"should be",
    r"only supports",
    r"(enabled|available|supported|allowed) only",
)
