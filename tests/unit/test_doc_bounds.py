"""The bounds that documents tell are the constants."""

import inspect
from pathlib import Path

import pytest

from consumers.generation.activities import ACTIVITIES_PER_JOB
from consumers.generation.body import MOST_BYTES, MOST_STREAM_BYTES
from consumers.webhooks.sender import MOST_OF_ONE
from infra.api.stream_limits import StreamLimits
from infra.auth import SHORTEST_KEY
from infra.console.live import MOST_STREAMS
from infra.console.sessions import LIFETIME
from infra.operations.job_search import COUNTED
from infra.settings import Settings
from producers.replay.failed_groups import LOOKED_AT, MOST_GROUPS
from streams.jobs.completion import MOST_TOKENS
from streams.jobs.events import LONGEST_DELAY, MAX_IDEMPOTENCY_KEY, MAX_REQUIREMENTS

ROOT = Path(__file__).parents[2]
_MIB = 2**20
_WORDS = {3: "three", 8: "eight", 10: "ten"}


def _streams(name: str) -> int:
    return int(inspect.signature(StreamLimits).parameters[name].default)


BOUNDS = [
    ("README.md", f"at most {LONGEST_DELAY.days} days ahead"),
    ("README.md", f"at least {SHORTEST_KEY} bytes"),
    ("README.md", f"{MOST_OF_ONE} of each endpoint at most"),
    ("docs/events.md", f"at most {LONGEST_DELAY.days} days ahead"),
    ("docs/events.md", f"up to {MAX_REQUIREMENTS:,} characters"),
    ("docs/events.md", f"at most {MAX_IDEMPOTENCY_KEY} characters"),
    ("docs/front-ends.md", f"of at most {MAX_IDEMPOTENCY_KEY} characters"),
    ("docs/front-ends.md", f"more than {LONGEST_DELAY.days} days ahead"),
    ("docs/front-ends.md", f"at most {_streams('at_once')} streams open"),
    (
        "docs/front-ends.md",
        f"at most {_WORDS[_streams('per_second')]} a second on average, {_streams('burst')} at once",
    ),
    ("docs/llm.md", f"{MOST_STREAM_BYTES // _MIB} MiB, of which {MOST_BYTES // _MIB} MiB may be the answer's own"),
    ("docs/llm.md", f"{MOST_BYTES // _MIB} MiB of a body"),
    ("docs/llm.md", f"beyond {MOST_TOKENS // 1_000_000} million"),
    ("docs/llm.md", f"At most {_WORDS[ACTIVITIES_PER_JOB]} events an attempt"),
    ("docs/console.md", f"lasts {_WORDS[LIFETIME.seconds // 3600]} hours"),
    ("docs/console.md", f"exact to {COUNTED:,}"),
    ("docs/console.md", f"At most {MOST_STREAMS} pages are live"),
    ("docs/console.md", f"the latest {LOOKED_AT:,} that the filter finds"),
    ("docs/console.md", f"The {MOST_GROUPS} largest groups"),
]


@pytest.mark.parametrize(("document", "words"), BOUNDS, ids=lambda value: value)
def test_a_bound_in_a_document_is_the_constant(document: str, words: str) -> None:
    """Who reads a limit and plans by it meets that limit."""
    assert words in " ".join((ROOT / document).read_text().split())


@pytest.mark.parametrize("document", ["docs/operating.md"])
def test_the_retentions_that_are_told_are_the_defaults(document: str) -> None:
    """`TEAMFIT_…_RETENTION_DAYS` (400) names the setting's default."""
    text = (ROOT / document).read_text()
    told = {
        field: Settings.model_fields[field].default
        for field in Settings.model_fields
        if field.endswith("_retention_days") and Settings.model_fields[field].default is not None
    }
    missing = [name for name, days in told.items() if f"`TEAMFIT_{name.upper()}` ({days:g})" not in text]
    assert told
    assert missing == []
