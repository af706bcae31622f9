"""Answers of providers and gateways that docs/providers.md has no page for: the same words and statuses decide.

They were written from public documentation and reports, to try what was made for others.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from consumers.generation.blame import Verdict
from infra.errors import DependencyDown
from tests.unit.generation.test_providers import failure_of

_CASES = [json.loads(line) for line in Path(__file__).with_name("other_providers.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: str(case["case"]))
def test_whoever_is_to_blame_is_found(case: dict[str, Any]) -> None:
    """What every job would meet holds the stage and fails no job; what one prompt causes fails that one alone."""
    failure = failure_of(case["status"], case["headers"], case["body"])
    verdict = failure.verdict or Verdict("prompt", failure.code, str(failure))
    assert (verdict.blame, verdict.code, sorted(verdict.refused)) == (case["blame"], case["code"], case["refused"])
    assert isinstance(failure.error, DependencyDown) == (case["blame"] not in {"prompt", "unknown"})
