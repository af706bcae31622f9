"""The documents name files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PATH = re.compile(r"\b(?:consumers|docs|infra|producers|streams|tests)/[\w./*-]*[\w*]")
# Files of an operator, which the documents say how to make.
MADE = {"infra/deploy/secrets.env", "infra/deploy/teamfit.env"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_folder_that_a_document_names_exists(document: Path) -> None:
    """A path from the root of the repository, or from the document itself, leads to a file or a folder."""
    named = set(_PATH.findall(document.read_text())) - MADE
    missing = {path for path in named if not any(any(base.glob(path)) for base in (ROOT, document.parent))}
    assert not missing
