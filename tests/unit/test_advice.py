"""One table tells plainly what is wrong with a field, wherever it came from: never in the words of Pydantic."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from infra.advice import explained, require_known
from infra.console.rendering import sentence
from infra.errors import Refused
from infra.operations.actions import ActionFilter
from infra.operations.discard_plans import DiscardChoice
from infra.operations.job_search import JobFilter
from producers.replay.failed import Filter

ROOT = Path(__file__).parents[2]
RUBBISH: tuple[object, ...] = (
    "",
    "x" * 2_000,
    "nonsense",
    "-1",
    "1.5",
    "\0",
    "9" * 40,
    [],
    {},
    None,
    1e400,
    "2031-13-01",
)
# Its words go to the LLM, which reads what it reads.
TO_THE_LLM = {"consumers/generation/choice.py", "consumers/generation/endpoint_file.py"}


def _complaints(model: type[BaseModel]) -> Iterator[str]:
    for field in (*model.model_fields, "unknown"):
        for value in RUBBISH:
            try:
                model.model_validate({field: value})
            except ValidationError as error:
                yield explained(error)


@pytest.mark.parametrize("model", [JobFilter, Filter, ActionFilter, DiscardChoice])
def test_each_field_of_a_filter_is_explained(model: type[BaseModel]) -> None:
    """A refusal names the field and what it must be, whatever is sent in it."""
    complaints = list(_complaints(model))
    assert len(complaints) > len(model.model_fields)
    for one in complaints:
        assert re.fullmatch(r"[\w.]+: (must|has|holds|is|does) .+", one), one
        assert not re.search(r"[Ii]nput|[Vv]alue error|should|is not valid \(", one), one


def test_no_message_is_quoted_as_pydantic_has_it() -> None:
    """`msg` is for whoever wrote the model; `infra.advice` words it for whoever filled it in."""
    found = {
        str(path.relative_to(ROOT))
        for folder in ("infra", "producers", "streams", "consumers")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"""\[['"]msg['"]\]""", path.read_text(encoding="utf-8"))
    }
    assert found == TO_THE_LLM


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("generaton", "did you mean `generation`?"),
        ("Quota", "did you mean `quota`?"),
        ("zzz", "there are generation, quo"),
    ],
)
def test_a_misspelt_word_names_the_nearest(value: str, says: str) -> None:
    """One of a few words is meant, and which."""
    with pytest.raises(Refused, match=re.escape(says)):
        require_known("stage", value, ["generation", "quota"])
    require_known("stage", None, ["generation"])
    require_known("stage", "generation", ["generation"])


@pytest.mark.parametrize(("said", "shown"), [("It waits", "It waits."), ("It waits.", "It waits."), ("Off!", "Off!")])
def test_a_sentence_ends_once(said: str, shown: str) -> None:
    """A next step that ends with a full stop stood on the overview with two."""
    assert sentence(said) == shown
