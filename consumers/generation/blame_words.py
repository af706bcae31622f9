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
    r"budget_\w+",
    r"spend_limit\w*",
    r"setlimitexceeded",
    r"token_quota_reached",
    r"\w+\.freetieronly",
    r"1113|1309",  # Zhipu
    r"base_resp_1008",
)
NO_CREDIT: Final = words(
    (
        r"(insufficient|not enough|no|negative|low|run out of|out of|exhausted|"
        r"used all)\b[\w\s]{0,24}\b(balance|credits?|funds)\b"
        r"(?! (were|was|have been|has been|are|is|will be) (charged|used|consumed|deducted))"
    ),
    r"\b(balance|credits?|funds)\b[\w\s]{0,24}(insufficient|too low|exhausted|depleted|used up)",
    r"(check|update|add|set ?up|enable|your) (your |a |an )?(plan and )?(billing|payment)",
    r"spend(ing)? (alert |hard )?(limit|threshold)",
    r"budget (has been |was |is )?exceeded|over budget",
    r"(credit card|payment method)[\w\s]{0,24}(required|on file)|valid credit card",
    r"free (tier|quota|allocation|trial)[\w\s]{0,40}(exhausted|used up|expired|ended)",
    r"your specified api usage limits?",
    r"requires billing|inactive subscription",
    r"payment[_ ](instrument|method)[\w\s]{0,24}(invalid|required|must be provided|declined)|invalid_payment_\w+",
    r"billing (to be|is not|not) enabled",
    r"prepaid",
    r"top[- ]?up",
    r"purchase (more )?credits",
    r"overdue",
    r"余额不足",
    r"欠费",
    r"套餐已(到|过)期",
)
# The account has not bought this. Under a 429 the same words advertise.
NOT_BOUGHT: Final = words(
    r"upgrade (your|the) (account|plan|subscription|tier)",
    r"requires an? [\w\s]{0,30}\b(subscription|plan|tier|account)\b",
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
    r"auth_?failure(\.\w+)?",
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
    r"\btoken (is |was |has )?(invalid|expired|revoked)",
    r"no cookie auth credentials",
    r"security token[\w\s]{0,40}(expired|invalid)",
    r"signature[^.]{0,60}(does(n't| not) match|expired)",
    r"authori[sz]ation (failed|required|denied)",
    r"key\b[\w\s]{0,24}(leaked|compromised|blocked)",
)
DENIED_CODES: Final = words(r"permission_(error|denied)", r"missing_scopes?")
DENIED: Final = words(
    r"not (authori[sz]ed|permitted|allowed) to (perform|access|use|invoke|call)",
    r"(does(n't| not) have|insufficient|no) (the )?(required |sufficient )?(permissions?|scopes?)\b",
    r"access to (this|the) (api|service|resource|endpoint)[\w\s]{0,16}(disallowed|denied|forbidden)",
    r"can ?not (consume|use|access|call) this (api|service|resource|endpoint)",
    r"not enabled for (this|your) (account|project|organi[sz]ation|key)",
    r"无权访问",
)
BLOCKED_CODES: Final = words(
    r"unsupported_country\w*",
    r"account_(suspended|deactivated|disabled|banned|locked|inactive)",
    r"user_(suspended|banned|deactivated)",
    r"organization_(restricted|suspended|disabled)",
    r"access_terminated\w*",
    r"project_archived",
    r"ip_not_\w+",
    r"api_key_\w+_blocked",
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
    r"(not (available|supported)|unavailable) in your (country|region)",
    (
        r"(account|organi[sz]ation|project|user|key|access|team|subscription)\b[\w\s'\"`-]{0,48}\b(suspended|deactivated|"
        r"disabled|inactive|banned|restricted|b?locked|terminated|archived)"
    ),
    r"\bip( address)?\b[^a-z]{0,40}(is |was )?(not (allowed|authori[sz]ed|whitelisted)|blocked|denied)",
    r"(network|firewall) (settings|rules|policy)",
    r"rbac: access denied",
)
# An outage that comes as a 4xx.
AWAY_CODES: Final = words(
    r"service_?unavailable\w*",
    r"(temporarily_)?unavailable",
    r"(server|model|engine)?_?(is_)?(overloaded|over_capacity|at_capacity)(_error)?",
    r"internal(_?server)?(_?error)?",
    r"server_error",
    r"internalserverexception",
    r"model(_?error|timeout|notready)exception",
    r"(deadline|timeout)_?exceeded",
    r"upstream_\w+",
)
AWAY: Final = words(
    r"queue is full",
    r"(at|over|maximum|exceeded) capacity|capacity (is )?(temporarily )?(exceeded|reached)",
    r"(currently|temporarily) (overloaded|unavailable)",
    r"(server|service|model|engine|system)s? (is|are) (too |currently |very )?(busy|overloaded|down|unavailable)",
    r"(model|server|process|runner) (has |was )?(crashed|unloaded)",
    r"internal (server )?error",
    r"(experienc|encounter)\w+ (an? )?(unexpected|internal|high) (error|demand|load|traffic)",
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
    r"\w*guardrail\w*",
    r"censorship\w*",
    r"(input|output)text\w*detected",
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
    r"safety (system|filter|reasons|settings|checks?)",
    r"(content|prompt|pattern|response|output|request)\b[^.]{0,24}\b(is|was|been)? ?blocked",
    r"violat\w* (the |a )?guardrail|by (the |a )?guardrail",
    r"blocked (entity|keyword|word|phrase|topic)",
    r"flagged (as|for|by)",
    r"requires moderation",
    r"content exists risk",
    r"\bnsfw\b",
    r"敏感|不安全|违规|违反",
)
NO_JSON: Final = words(
    r"(failed|unable|not able|could not) (to )?(generate|produce|output|return) (a |any )?(valid )?json",
    r"did(n't| not) (generate|produce|output|return) (a |any )?(valid )?json",
)
TRUNCATED: Final = words(r"could not finish the message")
NO_JSON_CODES: Final = words(
    r"json_validate_failed",
    r"failed_generation",
    r"output_parse\w*",
    r"json_(validation|generation)_failed",
    r"tool_use_failed",
)
LIMIT_CODES: Final = words(
    r"rate_?limit\w*",
    r"(request_?)?limit_?exceeded",
    r"quota_?exceeded",
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
    r"(rate|request|qps|rpm|tpm)[ -]?limit",
    r"too many requests",
    r"(requests|tokens) per (minute|second|hour|day)",
    r"throttl",
    r"concurren\w+ limit",
    r"out of call volume",
    r"(usage|key|consumption) limits? (was |were |has been |have been |is |are )?(exceeded|reached)",
    r"quota (limit )?(was |has been |is )?(exceeded|exhausted|reached|violation)",
    r"exceeded (its|your) (service|account|usage|daily|monthly)[\w\s]{0,16} (limit|quota)",
    r"并发(数过高|上限)|限流|请求过于频繁",
)
