"""The documents name files, commands, settings, tables and routes that exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from infra.api.app import LONGEST_BODY, OPERATORS_CONNECTIONS
from infra.cli import app
from infra.settings import Settings
from infra.verify.invariants import INVARIANTS
from streams.jobs.stages import STAGES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
_PATH = re.compile(r"\b(?:consumers|docs|infra|producers|streams|tests)/[\w./*-]*[\w*]")
_FILE = re.compile(r"`([\w-]+\.(?:py|sql|html|toml|yaml|yml|sh))`")
_COMMAND = re.compile(r"`(?:\.venv/bin/)?teamfit ([^`\n]+)`|^(?:\$ )?teamfit ([^\n]+)$", re.MULTILINE)
_MAKE = re.compile(r"`make ([a-z][\w-]*)|^\s*make ([a-z][\w-]*)", re.MULTILINE)
_TABLE = re.compile(r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+) \(")
# The calls of the LLM, the fold and the gaps of the archive have no query of their own.
_MORE = 3
_NAME = re.compile(r"`([A-Za-z]+(?:_[A-Za-z]+)+|[A-Z][a-z]+(?:[A-Z]\w*)+)(?:\(\))?`")
_STAGES = re.compile(r"\b(two|three|four|five|six|seven|eight|nine) (?:stages|workers)\b|instead of the (\w+)\b")
_FENCE = re.compile(r"^```(\w*)\n?", re.MULTILINE)
_TYPED = re.compile(r"\s*(\$|#|SELECT\b)")
_OPTION = re.compile(r"`(--[a-z][\w-]*)")
_REMARK = re.compile(r"\s{3,}")
_VARYING = re.compile(r"https?://\S+|\S*\d\S*|\broot\b|[(){}\[\]│┃|:;,…`'\"]")
_JOINED_TEXTS = re.compile(r'"\s*\n\s*f?"')
_MESSAGE_WORDS = 4
ROOMS = ("consumers", "infra", "producers", "streams")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# Names of other programs: of Celery, pgbouncer, nginx, OpenTelemetry.
FOREIGN = {
    *("add_consumer", "pool_grow", "pool_shrink", "time_limit"),
    *("ignore_startup_parameters", "client_max_body_size", "OTEL_EXPORTER_OTLP_HEADERS"),
}
# Of compose, Prometheus and vLLM.
FOREIGN_OPTIONS = {"--env-file", "--scale", "--enable-feature", "--max-model-len", "--api-key"}
# A line of Python's own.
_OF_PYTHON = "most recent call last"
# Files of an operator, which the documents say how to make.
MADE = {"infra/deploy/secrets.env", "infra/deploy/teamfit.env"}


@each_document
def test_every_file_and_folder_that_a_document_names_exists(document: Path) -> None:
    """A path from the root of the repository, or from the document itself, leads to a file or a folder."""
    text = document.read_text()
    missing = {
        path
        for path in set(_PATH.findall(text)) - MADE
        if not any(any(base.glob(path)) for base in (ROOT, document.parent))
    }
    rooms = ("streams", "consumers", "producers", "infra", "tests")
    missing |= {
        name
        for name in set(_FILE.findall(text))
        if not (ROOT / name).exists() and not any(next((ROOT / room).rglob(name), None) for room in rooms)
    }
    assert not missing


def _wrong(words: list[str]) -> Iterator[str]:
    """Yield what of a command's words the program does not know."""
    command = typer.main.get_command(app)
    context = typer.Context(command)
    for word in words:
        if word.lstrip("[").startswith("--"):
            option = word.strip("[],").partition("=")[0]
            if option not in {name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)}:
                yield option
        elif (choose := getattr(command, "get_command", None)) is not None:
            if (chosen := choose(context, word.rstrip("…,"))) is None:
                yield word
                return
            command, context = chosen, typer.Context(chosen, parent=context)


@each_document
def test_every_command_that_a_document_names_exists_with_its_options(document: Path) -> None:
    """`teamfit …` in backticks, or at the start of a line, is a command; so is `make …`."""
    text = document.read_text()
    wrong = []
    for quoted, line in _COMMAND.findall(text):
        words = re.split(r"\s(?:[#|>]|&&)\s*|\)", quoted or line)[0].split()
        wrong += [f"teamfit {' '.join(words)}: {word}" for word in _wrong(words)]
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wrong += [f"make {one or other}" for one, other in _MAKE.findall(text) if (one or other) not in targets]
    assert wrong == []


@each_document
def test_every_option_that_a_document_names_by_itself_is_one(document: Path) -> None:
    """Of a command, or of a program of `infra/bench`, whose options stand in its code."""
    known = {name for command in _all_commands(typer.main.get_command(app)) for name in command}
    known |= {
        name
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r'"(--[\w-]+)"', path.read_text())
    }
    assert set(_OPTION.findall(document.read_text())) - known - FOREIGN_OPTIONS == set()


def _all_commands(command: Any, context: Any = None) -> Iterator[set[str]]:
    """Yield the options of a command and of each below it."""
    context = typer.Context(command, parent=context)
    yield {name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)}
    for name in getattr(command, "list_commands", lambda _context: ())(context):
        yield from _all_commands(command.get_command(context, name), context)


@each_document
def test_every_variable_that_a_document_names_is_a_setting(document: Path) -> None:
    """A `TEAMFIT_…` that is written out names a setting."""
    named = set(re.findall(r"\bTEAMFIT_[A-Z_]*[A-Z]\b", document.read_text()))
    assert named <= {f"TEAMFIT_{field.upper()}" for field in Settings.model_fields}


def _tables() -> set[str]:
    return {
        table
        for path in (ROOT / "infra/migrations/versions").glob("*.sql")
        for table in _TABLE.findall(re.sub(r"--[^\n]*", "", path.read_text()))
    }


def test_every_table_has_a_line_that_says_how_it_grows_and_one_that_says_who_writes_it() -> None:
    """What nothing bounds would be found by a full disk."""
    grows = (ROOT / "docs/operating.md").read_text().partition("## The database grows")[2]
    written = (ROOT / "docs/architecture.md").read_text()
    assert [table for table in sorted(_tables()) if f"`{table}`" not in grows] == []
    assert [table for table in sorted(_tables()) if f"`{table}`" not in written] == []


@each_document
def test_the_number_of_invariants_is_the_true_one(document: Path) -> None:
    """An output that is shown says how many there are."""
    assert {int(n) for n in re.findall(r"All (\d+) invariants hold", document.read_text())} <= {len(INVARIANTS) + _MORE}


def _words_of_the_code() -> set[str]:
    kinds = {".py", ".sql", ".sh", ".yaml", ".yml", ".toml", ".js", ".ts", ".html", ".json", ".service"}
    return {
        word
        for room in ("consumers", "infra", "producers", "streams", "tests")
        for path in (ROOT / room).rglob("*")
        if path.suffix in kinds and path.is_file() and path != Path(__file__)
        for word in re.findall(r"\w+", path.read_text())
    }


def test_every_name_in_backticks_occurs_in_the_code() -> None:
    """A constant, class, field, table, metric or error code that a document names is one, also when it is renamed."""
    known = _words_of_the_code() | FOREIGN | {f"TEAMFIT_{field.upper()}" for field in Settings.model_fields}
    unknown = {
        f"{document.relative_to(ROOT)}: {name}"
        for document in DOCUMENTS
        for name in _NAME.findall(document.read_text())
        if name not in known
    }
    assert unknown == set()


def test_deploying_counts_the_stages_that_there_are() -> None:
    """A new stage has a port that is asked, and every number of stages or workers in the text is the true one."""
    text = (ROOT / "docs/deploying.md").read_text()
    counted = {one or other for one, other in _STAGES.findall(text)}
    assert counted == {_NUMBERS[len(STAGES)]}
    asked = re.findall(r"for port in 8000 ([\d ]+);", text)
    assert [one.split() for one in asked] == [[str(9101 + place) for place in range(len(STAGES))]]
    assert f"so {_NUMBERS[len(STAGES) + 1]} processes need {_most_connections()}." in text


def _most_connections() -> int:
    """Return how many a process of each stage and an API open at most: pool, watch and gauges; the API has more."""
    each = Settings.model_fields["database_pool_size"].default + 2
    return (len(STAGES) + 1) * int(each) + OPERATORS_CONNECTIONS + 1


def test_capacity_counts_the_connections_as_deploying_does() -> None:
    """Whoever sets the server's limit by either page has enough."""
    text = (ROOT / "docs/capacity.md").read_text()
    assert re.search(rf"{_NUMBERS[len(STAGES)]} stages and an API need \d+, and {_most_connections()} at most", text)


def test_deploying_says_how_long_a_body_may_be() -> None:
    """Whoever sets a proxy's limit by the document lets through what the API takes."""
    text = (ROOT / "docs/deploying.md").read_text()
    assert f"Bodies have {LONGEST_BODY // 1000} kB at most" in text


@pytest.mark.parametrize("page", ["operating.md", "replay.md"])
def test_messages_that_are_shown_are_in_the_code(page: str) -> None:
    """Whoever searches the page for what they read finds it: the words between names and numbers are the code's."""
    code = "\n".join(path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    code = " ".join(_JOINED_TEXTS.sub("", code).split())
    pieces = _FENCE.split((ROOT / "docs" / page).read_text())
    # Text, language, block, end of the block, and again. A block without a language is what somebody reads.
    shown = [block for language, block in zip(pieces[1::4], pieces[2::4], strict=True) if not language]
    lines = [_REMARK.split(line)[0] for block in shown for line in block.splitlines() if not _TYPED.match(line)]
    words = [part.strip(" .") for line in lines for part in _VARYING.split(line)]
    told = [one for one in words if len(one.split()) >= _MESSAGE_WORDS and not one.startswith("teamfit ")]
    assert len(told) > _MESSAGE_WORDS
    assert [one for one in told if one != _OF_PYTHON and one not in code] == []
