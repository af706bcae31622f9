"""Bounds that the operators' pages tell are those of the constants, of the units and of the migrations."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from consumers.failures import worker as failures
from consumers.generation.progress import WORTH_TELLING_S
from consumers.webhooks.retries import DELAYS
from consumers.webhooks.sender import LONGEST_TRY_S
from producers.replay import errors as replay_errors
from streams.delivery.standstill import FailureWindow
from tests.unit.test_doc_bounds import assert_says

ROOT = Path(__file__).parents[2]
_WORDS = {2: "two", 3: "three", 10: "ten"}
_UNIT = "infra/deploy/systemd/teamfit-worker@.service"
_MIGRATIONS = "infra/migrations/versions/*.sql"


def _said(where: str, pattern: str) -> str:
    """Return the one number that files of ours say, with its separators: two would need a look."""
    (said,) = {one for path in ROOT.glob(where) for one in re.findall(pattern, path.read_text())}
    return f"{int(said):,}"


_STOP_S = _said(_UNIT, r"TimeoutStopSec=(\d+)")
_MEMORY_GB = _said(_UNIT, r"MemoryMax=(\d+)G")
_FORGOTTEN_S = _said(_MIGRATIONS, r"worker\.seen_at > clock_timestamp\(\) - interval '(\d+) seconds'")
_PER_MINUTE = _said(_MIGRATIONS, r"shares\.requests_per_minute, (\d+)\)")
_MOST_WAITING = _said(_MIGRATIONS, r"shares\.max_waiting, (\d+)\)")

BOUNDS = [
    ("README.md", f"signed, for {_WORDS[sum(DELAYS, timedelta()).days]} days until they take it"),
    ("README.md", f"longer than {_WORDS[int(WORTH_TELLING_S)]} seconds, answers are"),
    ("docs/fairness.md", f"A worker is forgotten after {_FORGOTTEN_S} s"),
    ("docs/fairness.md", f"| otherwise | {_PER_MINUTE} | {_MOST_WAITING} |"),
    ("docs/replay.md", f"the first {replay_errors._SHOWN} are named"),
    ("docs/operating.md", f"in any order, and allow {_STOP_S} s"),
    ("docs/operating.md", f"a webhooks worker its tries for {LONGEST_TRY_S:g} s more"),
    ("docs/operating.md", f"in `failures` {failures._CONCURRENCY}, elsewhere"),
    ("docs/operating.md", f"no more than the {_WORDS[FailureWindow.minimum // 2]} latest tries count"),
    ("docs/deploying.md", f"let a worker finish for {_STOP_S} s"),
    ("docs/deploying.md", f"`MemoryMax={_MEMORY_GB}G`"),
]


@pytest.mark.parametrize(("document", "words"), BOUNDS, ids=lambda value: value)
def test_a_bound_in_an_operators_page_is_the_one_that_counts(document: str, words: str) -> None:
    """Who reads a limit and plans by it meets that limit, also where a file of the deployment has it."""
    assert_says(document, words)
