"""Public docstrings of these folders begin with a short, plain sentence."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("streams", "consumers", "producers", "infra")
_MOST_WORDS = 15
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_CLAUSE_END = re.compile(r"[.!?:;]\s?")
_FEW_WORDS = 5
_QUESTION = re.compile(r"(What|Whether|How|Why|Which|Where)\b")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: _Documented) -> Iterator[_Documented]:
    """Yield a module or class and everything public in it."""
    yield node
    for inner in node.body:
        if isinstance(inner, _Documented) and not inner.name.startswith("_"):
            yield from public(inner)


@pytest.mark.parametrize("folder", FOLDERS)
def test_first_sentences_are_short_and_no_questions(folder: str) -> None:
    """At most 15 words, and no beginning such as "What" or "Whether"."""
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in public(ast.parse(path.read_text())):
            first = _SENTENCE_END.split(" ".join((ast.get_docstring(node) or "").split()), maxsplit=1)[0]
            if len(first.split()) > _MOST_WORDS or _QUESTION.match(first):
                wrong.append(f"{path.relative_to(ROOT)}: {first}")
    assert not wrong


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_says_a_thing_twice(folder: str) -> None:
    """A sentence that was moved up is not left below as well."""
    twice = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = " ".join(((isinstance(node, _Documented) and ast.get_docstring(node)) or "").split())
            parts = [part for part in _CLAUSE_END.split(text) if len(part.split()) > _FEW_WORDS]
            twice += [f"{path.relative_to(ROOT)}: {part}" for part in set(parts) if parts.count(part) > 1]
    assert twice == []


# Each has a plainer word; what is left is a name: an account of the machine, an organization, whose fault an answer is.
_BANNED = re.compile(r"\b(nobody|nobody's|convict\w*|knock\w*|in hand)\b", re.IGNORECASE)
_NAMES = re.compile(r'"nobody"|: nobody`|\| nobody \||named postgres or nobody')
_TEXTS = ("streams", "consumers", "producers", "infra", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
_SUFFIXES = {".py", ".sql", ".lua", ".md", ".yml", ".yaml"}
# Their text is that of the databases which they have changed.
_FIXED = "infra/migrations/versions"


def test_no_text_has_a_word_that_is_hard_to_read() -> None:
    """Texts are read by people whose first language is another."""
    wrong = []
    for path in (
        path for name in _TEXTS for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
    ):
        name = str(path.relative_to(ROOT))
        if path.suffix not in _SUFFIXES or name.startswith(_FIXED):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if found := _BANNED.search(_NAMES.sub("", line)):
                wrong.append(f"{name}:{number}: {found[0]}")
    assert wrong == []
