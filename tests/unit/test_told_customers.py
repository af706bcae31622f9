"""What a customer reads of a job's end: one sentence for each code, without what is the operators' business."""

import ast
import re
from pathlib import Path

import pytest

from infra.clock import SystemClock
from infra.errors import Permanent, Transient
from streams.jobs.outcomes import ERROR_CODES, job_failed
from tests.facts import requested

_ROOT = Path(__file__).parents[2]
# What operators read, and customers need not know.
_PRIVATE = "model gpt-4o-mini at http://llm.internal:8000/v1 is unknown (404): check TEAMFIT_MODEL and OPENAI_BASE_URL"
_SETTING = re.compile(r"\b(TEAMFIT|OPENAI)_[A-Z_]+|https?://|gpt-4o|finish_reason")
_IN_FULL = {"team_not_found", "run_at_too_far", "invalid_event", "poison_event", "interrupted"}


def _codes_of_calls() -> set[str]:
    """Return every code of a failed call that the generation stage knows, whether it ends a job or not."""
    trees = [ast.parse(path.read_text()) for path in (_ROOT / "consumers" / "generation").glob("*.py")]
    texts = {one.value for tree in trees for one in ast.walk(tree) if isinstance(one, ast.Constant)}
    return {one for one in texts if isinstance(one, str) and re.fullmatch(r"llm_[a-z_]+", one)}


@pytest.mark.parametrize("code", sorted({*ERROR_CODES, *_codes_of_calls(), "unheard_of"} - _IN_FULL))
@pytest.mark.parametrize("kind", [Permanent, Transient])
def test_no_code_tells_a_customer_what_is_the_operators_business(
    code: str, kind: type[Permanent] | type[Transient]
) -> None:
    """Addresses, models and settings stand in the failed event and the log, never in a job."""
    told = job_failed(requested(), kind(code, _PRIVATE), SystemClock()).data
    assert told.code == code
    assert told.error_message == ERROR_CODES.get(code, ERROR_CODES["internal_error"])
    assert not _SETTING.search(told.error_message)


@pytest.mark.parametrize("error", [ValueError(_PRIVATE), TimeoutError(_PRIVATE), KeyError()])
def test_no_bug_does_either(error: Exception) -> None:
    """A bug's message may hold anything."""
    told = job_failed(requested(), error, SystemClock()).data
    assert told.error_message == ERROR_CODES[told.code]


@pytest.mark.parametrize("code", sorted(_IN_FULL))
def test_what_is_about_the_customers_own_job_is_told_in_full(code: str) -> None:
    """It names what is wrong with the request, or what was done with it."""
    error = Permanent(code, "organization acme has no team t1")
    assert job_failed(requested(), error, SystemClock()).data.error_message == str(error)
