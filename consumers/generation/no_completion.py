"""A body under status 200 may be no answer of the LLM. It is then an error, a page, or nothing that is known."""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from streams.jobs.completion import Usage

_REPORTS: Final = (
    *("error", "errors", "detail", "message", "msg", "error_msg", "error_message", "errormessage", "base_resp"),
    *("fault", "exception"),
)
# Gateways write these where there was no error.
_NO_ERROR: Final = frozenset({"", "0", "00", "200", "none", "null", "nil", "ok", "success", "no error", "false"})
_STATUSES: Final = ("code", "status", "status_code", "statuscode", "http_code", "httpcode")
_MOST_FIELDS: Final = 100
# MiniMax has generated such an answer, and keeps it.
_KEPT: Final = 1027


class NoCompletion(Exception):
    """A body under status 200 reports an error, or is no chat completion.

    Attributes:
        status: the status that it stands for, or None if it names none.
        body: the error that it holds, as JSON; None if it holds none.
        hint: which address to set, if it is the body of another API that holds no activities.
        holds_json: whether JSON stands in that one, as in the answer to a harmless question.
        usage: the tokens that it cost all the same.
        maybe_billed: whether it may have cost tokens that it does not name.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        body: object = None,
        hint: str = "",
        holds_json: bool = False,
        usage: Usage | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.hint = hint
        self.holds_json = holds_json
        self.usage = usage
        self.maybe_billed = maybe_billed


def reports(part: Mapping[str, Any]) -> bool:
    """Return whether a part of a body reports an error. Some servers send an empty one with each answer."""
    error = part.get("error")
    says_something = any(map(_is_error, error.values())) if isinstance(error, dict) else _is_error(error)
    has_failed = part.get("success") is False and bool(part.get("errors"))
    return says_something or has_failed or bool(_mapping(part.get("base_resp")).get("status_code"))


def reported(part: Mapping[str, Any], usage: Usage) -> NoCompletion:
    """Return what a part of a body reports, if anything, and its cost."""
    part = _report_in(_lowered(part))
    error = part.get("error") or part
    stated = [_lowered(_mapping(one)).get(name) for one in (error, part) for name in _STATUSES]
    statuses = [int(one) for one in map(str, stated) if re.fullmatch("[45][0-9]{2}", one)]
    is_report = _says(part)
    costs = usage.prompt_tokens is not None or usage.completion_tokens is not None
    is_kept = _mapping(part.get("base_resp")).get("status_code") == _KEPT
    return NoCompletion(
        f"the endpoint's answer is {'an error under status 200' if is_report else 'no chat completion'}",
        status=next(iter(statuses), None),
        body=error if is_report else None,
        usage=usage if costs else None,
        maybe_billed=usage.maybe_billed if costs else is_kept or not is_report,
    )


def _report_in(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object that reports: this one, or the one within it that has an error or a code with a sentence."""
    if _says(part):
        return part
    inner = [_lowered(one) for one in part.values() if isinstance(one, dict)]
    reports = [one for one in inner if one.get("error") or (one.get("code") and one.get("message"))]
    return reports[0] if len(reports) == 1 else part


def _says(part: Mapping[str, Any]) -> bool:
    return any(part.get(name) for name in _REPORTS)


def _lowered(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return {str(name).lower(): value for name, value in islice(part.items(), _MOST_FIELDS)}


def _is_error(stated: object) -> bool:
    is_word = isinstance(stated, str | int) and not isinstance(stated, bool)
    return bool(stated) and not (is_word and str(stated).strip().lower() in _NO_ERROR)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
