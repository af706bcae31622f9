"""These words say what providers refuse in a request.

It is too long, its model or address is unknown, or its form is not taken.

All are in lower case. Where they were read: docs/providers.md.
"""

import re
from typing import Final

from consumers.generation.blame_words import words

MODEL_CODES: Final = words(
    (
        r"model_?(not_?found|not_?exist|not_available|not_supported|decommissioned|terms_required|deprecated|"
        r"permission_blocked\w*)\w*"
    ),
    r"(unknown|invalid|unsupported|unavailable|no_such)_model\w*",
    r"no_access",
    r"deployment_?not_?found",
    r"model_not_open",
    r"model_not_loaded",
    r"model\.access_?denied",
    r"operation_?not_?supported",
    r"key_model_access_denied",
    r"1211",  # Zhipu
    r"base_resp_2061",
)
MODEL: Final = words(
    (
        r"\bmodels?\b[^.]{0,160}?(not found|does(n't| not) exist|not exist|is not available|no longer|"
        r"decommissioned|disabled|gated|not (loaded|deployed)|not a valid|identifier is invalid|"
        r"is not supported\b(?! (response|when|with this (param|value)))|"
        r"retired|not a chat model|removed|end of (its )?life|access (is )?denied)"
    ),
    r"(unknown|invalid|no such|unrecogni[sz]ed|unsupported|not a valid) model\b",
    r"not a valid model id",
    r"no models? loaded",
    r"no endpoints found",
    r"no allowed providers",
    r"failed to load model",
    r"try pulling it",
    r"do(es)?(n't| not) have access to (the )?model|no access to (the )?model",
    r"llm provider not provided",
    r"deployment[\w\s]{0,40}does not exist",
    r"(does(n't| not)|not) support (the )?chat",
    r"does not work with the specified model",
    r"on-demand throughput",
    r"real ?model ?id",
    r"无权使用模型",
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
    r"context ?(length|window|size)",
    r"maximum prompt length",
    r"must have less than \d+ tokens",
    r"range of input length",
    # What is left for the answer beside a prompt that is longer than the model reads.
    r"max_tokens must be at least 1, got -",
    r"maximum (input|prompt|sequence)? ?(length|tokens)(?! you requested)[^.]{0,60}exceed",
    r"(prompt|input)[ _](length|tokens?)\b[^.]{0,60}?((greater|larger|longer|more) than|must be less)",
    r"(prompt|input|request|messages?|payload|body)\b[^.]{0,40}?too (long|large|big)",
    r"too (many|long)[^.]{0,20}(input |prompt )?tokens",
    r"reduce (the |your )?(length|message|prompt|input)",
    r"exceed(s|ed)?\b[^.]{0,40}(token|context|length) (limit|count|window|size)",
    r"exceed\w* (the )?max(imum)? (message|input|prompt|context) (tokens|length)",
    r"maximum number of (input )?tokens",
    r"inputs?`? tokens",
    r"longer than (the )?(model|maximum)",
    r"length exceeds\b[^.]{0,30}context",
    r"max_model_len",
    r"token count[^.]{0,40}exceeds",
    r"entity too large",
)
# Under a 429: no later minute has room for it.
TOO_LARGE_EVER: Final = words(r"request too large", r"tokens must be reduced")
TOO_MANY_ASKED: Final = words(
    (
        r"max(imum)?[_ ]?(completion[_ ]?|output[_ ]?|new[_ ]?)?tokens?\b[^.]{0,120}?(too (large|high|big)|"
        r"at most|less than|must be|should be|<=|exceed|greater than|range|maximum allowed|must have stream)"
    ),
    (
        r"(too (large|high|big)|at most|supports at most|valid range)[^.]{0,60}?(completion tokens|"
        r"max(imum)?[_ ](completion[_ ]|output[_ ])?tokens)"
    ),
)
# What a validation error says of a parameter that it names in a field of its own.
BOUND: Final = words(r"(less|greater) than", r"at most", r"<=", r"\brange\b")
# LM Studio says so under status 200.
NO_ADDRESS: Final = words(
    r"could not route to",
    r"please configure ai gateway",
    r"unexpected endpoint",
    r"(no|unknown|invalid) (such )?(route|endpoint|path)\b",
    r"cannot post ",
)
# Azure's dated interfaces: one that is missing, or has been ended.
API_VERSION: Final = words(
    r"api[ -]version\b[^.]{0,60}?(required|missing|invalid|unknown|not (supported|found|valid))",
    r"(missing|invalid|unknown|unsupported)[\w ]{0,20} api[ -]version\b",
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
        r"response_?schema",
        r"structured[ _]outputs?",
        r"guided[_ ]\w+",
        r"grammar",
        r"\bschema\b",
    ),
    "system": words(
        r"messages\W{1,2}\d+\W{1,2}role",
        r"system[ _](role|message|prompt|instruction)s?",
        r"role\W{1,4}system",
        r"roles must alternate",
        r"messages?\b[^.]{0,80}\bshould alternate",
        r"only user,? and (assistant|model) roles",
        r"support \W?system\b",
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
    r"failed to (parse|compile|convert)",
    r"(must|should) alternate",
    r"too (many states|complex|deep)",
    r"only user,? and",
    r"must (be|contain)",
    r"should be",
    r"only supports",
    r"(enabled|available|supported|allowed) only",
)
