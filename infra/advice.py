"""One table words each wrong field and its fix, for HTTP and for events.

Pydantic speaks of its own classes, and some of its messages quote a pattern. None of these repeats what was sent.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

_EXAMPLE: Final = "2031-04-03T08:00:00Z"
_MOMENT: Final = f"must be a time such as {_EXAMPLE}"
_WHOLE: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_OBJECT: Final = "must be a JSON object, neither a text nor a list"
_UUID: Final = "must be a UUID such as 7c9e6679-7425-40de-944b-e07fc1f90ae7"

# By Pydantic's type of error; `{…}` come from its context.
_ADVICE: Final[Mapping[str, str]] = {
    "missing": "is missing; add it",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} character(s) that are not spaces",
    "string_too_long": "has more than {max_length} characters; shorten it",
    "too_short": "must have a length of at least {min_length}",
    "too_long": "is longer than {max_length}; shorten it",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "extra_forbidden": "is not known here; remove it",
    "string_unicode": "holds text that is not valid Unicode; send UTF-8",
    "string_pattern_mismatch": "holds a character that is not allowed here, such as NUL; remove it",
    "invalid_key": "has a name that is not valid Unicode; send UTF-8",
    "literal_error": "must be {expected}",
    "uuid_type": _UUID,
    "uuid_parsing": _UUID,
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "dict_type": _OBJECT,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "datetime_type": _MOMENT,
    "datetime_parsing": _MOMENT,
    "datetime_from_date_parsing": _MOMENT,
    "datetime_object_invalid": _MOMENT,
    "timezone_aware": f"must say its time zone, as in {_EXAMPLE}",
    "union_tag_invalid": "names no event of this pipeline; docs/events.md lists them",
    "union_tag_not_found": "is missing; for a request it is teamfit.job.requested.v1",
    "value_error": "{error}",
}


def advice_on(complaint: Mapping[str, Any]) -> str:
    """Return the problem and the fix for one error of a ValidationError."""
    sentence = _ADVICE.get(complaint["type"], "is not valid ({type})")
    return sentence.format(**{"type": complaint["type"], **complaint.get("ctx", {})})


def explained(error: ValidationError) -> str:
    """Say which fields are wrong and why. The input is not repeated: it may be long or private."""
    complaints = []
    for problem in error.errors(include_url=False, include_input=False, include_context=True):
        # The union puts the event's type in front of the path of each field; the reader knows the type.
        path = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("teamfit."))
        if problem["type"].startswith("union_tag"):
            path = "type"
        complaints.append(f"{path or 'event'}: {advice_on(problem)}")
    return "; ".join(complaints)
