"""One table words each wrong field and its fix, for all who read one.

Pydantic speaks of its own classes, and some of its messages quote a pattern. None of these repeats what was sent.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from infra.errors import Refused

_AS_THEY_ARE: Final[Mapping[str, str]] = {}
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
    "greater_than": "must be more than {gt}",
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
# A pattern is for programs.
_FORMS: Final[Mapping[str, str]] = {
    "^[0-9a-f]{32}$": "must be 32 hexadecimal digits, in lower case",
    r"^\d{4}-(0[1-9]|1[0-2])$": "must be a month such as 2031-04",
}


def require_known(field: str, value: str | None, known: Collection[str]) -> None:
    """Refuse a value that is none of a few. A misspelt one finds nothing, which looks like good news.

    Raises:
        Refused: with the nearest one (`invalid_request`).
    """
    if value is None or value in known:
        return
    meant = get_close_matches(value.casefold()[:100], known, n=1)
    fix = f"did you mean `{meant[0]}`?" if meant else f"there are {', '.join(sorted(known))}"
    raise Refused("invalid_request", f"{field}: is not known; {fix}")


def advice_on(complaint: Mapping[str, Any]) -> str:
    """Return the problem and the fix for one error of a ValidationError."""
    context = complaint.get("ctx", {})
    if context.get("pattern") in _FORMS:
        return _FORMS[context["pattern"]]
    sentence = _ADVICE.get(complaint["type"], "is not valid ({type})")
    return sentence.format(**{"type": complaint["type"], **context})


def explained(error: ValidationError, *, whole: str = "event", names: Mapping[str, str] = _AS_THEY_ARE) -> str:
    """Say which fields are wrong and why. The input is not repeated: it may be long or private.

    Args:
        error: what a model says.
        whole: what is wrong where no field is.
        names: what fields are called where they came from, if that is another name.
    """
    complaints = []
    for problem in error.errors(include_url=False, include_input=False, include_context=True):
        # The union puts the event's type in front of the path of each field; the reader knows the type.
        path = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("teamfit."))
        if problem["type"].startswith("union_tag"):
            path = "type"
        complaints.append(f"{names.get(path, path) or whole}: {advice_on(problem)}")
    return "; ".join(complaints)
