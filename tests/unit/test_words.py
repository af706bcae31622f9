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
