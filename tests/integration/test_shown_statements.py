"""What the documents show of SQL runs on the schema, so that whoever pastes it meets no table of before."""

import re
from pathlib import Path

from tests.conftest import Pool

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_READS = re.compile(r"^SELECT\b.*?;", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(SELECT [^`]+)`")


def _statements() -> list[str]:
    texts = [path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]
    blocks = [block for text in texts for block in _BLOCK.findall(text)]
    return [one for block in blocks for one in _READS.findall(block)] + [
        one for text in texts for one in _INLINE.findall(text)
    ]


async def test_statements_that_documents_show_run(database: Pool) -> None:
    """Each names tables and columns that there are."""
    statements = _statements()
    assert len(statements) > 5
    for statement in statements:
        await database.fetch(statement)
