"""Documents say of routes, statuses, defaults, headers, spans, log lines and events, held against the code."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from consumers.webhooks.messages import BUDGET, EVENT_TYPES, TEST
from infra import tracing
from infra.api import cross_origin
from infra.api.problems import PROBLEMS
from infra.console.rendering import anchor
from infra.settings import Settings
from producers.celery_results import _STATES as CELERY_STATES
from streams.jobs.events import TERMINAL, JobEvent, JobRequested
from streams.jobs.organization_facts import OrganizationFact, Reached
from streams.jobs.topics import TOPICS, type_of
from tests.unit.test_doc_names import ROOMS, ROOT, each_document

_VERBS = "GET|POST|PUT|PATCH|DELETE"
_ROUTE = re.compile(rf"`({_VERBS}) (/[^`]*)`")
_PARAMETER = re.compile(r"\{\w+\}|<[^>]*>|\b[A-Z]+\b")
# A page of the reader's own: a receiver of webhooks, a back end.
_OF_THE_READER = {"/hooks", "/my/teamfit-token"}
_STATUS_AND_CODE = re.compile(r"\b([45]\d\d) `([a-z]+(?:_[a-z]+)*)`")
_DEFAULT = re.compile(r"`TEAMFIT_([A-Z_]+)`(?: \(| is )([\d.,]+)\b(?!\s*(?:days|minutes|tokens|s\b))")
_DOTTED = re.compile(r"`([a-z][a-z_]*(?:\.[a-z][a-z_0-9-]*)+)`")
_HEADER = re.compile(r"`([A-Z][a-zA-Z]*(?:-[A-Z][a-zA-Z]*)+|(?:x|webhook|retry)-[a-z-]+[a-z])`")
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_RUN = re.compile(rf"python -m ((?:{'|'.join((*ROOMS, 'tests'))})\.[\w.]+)((?: --?[\w-]+(?: [\w,.]+)*)*)")
_OLD_NAME = re.compile(r"`[^`]+`\s+→")
_RENAMED = re.compile(r"→\s+`([a-z_]+\.[a-z_]+)`")
# Fields of events, as a front end reads them, and files.
_NO_NAMES_OF_OURS = re.compile(r"data\.\w+|.*\.(?:py|js|json|sql|sh|toml|yaml|yml|env|html)|a\.b")
_ROW = re.compile(r"^\| (.+?) \|", re.MULTILINE)
_KINDS_OF = ("packing", "envelope", "message", "no_completion", "choice")


def _code() -> str:
    return "\n".join(
        path.read_text()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in {".py", ".sql", ".html", ".yaml", ".yml"}
    )


CODE = _code()
GENERATION = ROOT / "consumers/generation"


def section(document: str, heading: str) -> str:
    """Return what stands under a heading."""
    text = (ROOT / document).read_text()
    return re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def first_column(text: str) -> list[str]:
    """Return the first column of the tables in a text, without their heads."""
    lines = text.splitlines()
    heads = {lines[place - 1] for place, line in enumerate(lines) if re.match(r"\| ---", line)}
    return _ROW.findall("\n".join(line for line in lines if line not in heads and not line.startswith("| ---")))


def quoted(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def _routes() -> set[tuple[str, str]]:
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    return {(verb.upper(), _PARAMETER.sub("*", path)) for path, operations in paths.items() for verb in operations}


@each_document
def test_every_route_that_a_document_names_exists(document: Path) -> None:
    """A method and a path in backticks are a route's; whoever calls it is answered."""
    named = {
        (verb, _PARAMETER.sub("*", path.partition("?")[0].strip()))
        for verb, path in _ROUTE.findall(document.read_text())
    }
    assert {one for one in named if one[1] not in _OF_THE_READER} - _routes() == set()


@each_document
def test_every_code_stands_with_its_status(document: Path) -> None:
    """`503 too_busy` is what the API answers."""
    told = {(code, int(status)) for status, code in _STATUS_AND_CODE.findall(document.read_text()) if code in PROBLEMS}
    assert told <= {(code, status) for code, (status, _) in PROBLEMS.items()}


@each_document
def test_every_default_is_the_settings(document: Path) -> None:
    """A number behind a setting's name is its default."""
    text = " ".join(document.read_text().split())
    told = {name.lower(): float(number.strip(".,").replace(",", "")) for name, number in _DEFAULT.findall(text)}
    assert {name: (number, Settings.model_fields[name].default) for name, number in told.items()} == {
        name: (number, number) for name, number in told.items()
    }


@each_document
def test_every_name_with_dots_is_in_the_code(document: Path) -> None:
    """A log line, a span's attribute, a type of events or a column that a document names is one."""
    unknown = []
    for name in _DOTTED.findall(_OLD_NAME.sub("", document.read_text())):
        table, _, column = name.partition(".")
        is_column = re.search(rf"\b{table}\b", CODE) and re.search(rf"\b{column.rpartition('.')[2]}\b", CODE)
        if not _NO_NAMES_OF_OURS.fullmatch(name) and name not in CODE and not is_column:
            unknown.append(name)
    assert unknown == []


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    """A link to another document, or to a section of one, is followed by readers."""
    astray = []
    for target in _LINK.findall(_FENCED.sub("", document.read_text())):
        path, _, section_name = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists() or (section_name and section_name not in _anchors(found)):
            astray.append(target)
    assert astray == []


def _anchors(document: Path) -> set[str]:
    return {anchor(one.replace("`", "")) for one in re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)}


@each_document
def test_every_module_that_a_document_runs_takes_its_options(document: Path) -> None:
    """`python -m infra.bench.service --rates 2 10` begins as it is written."""
    wrong = []
    for module, options in _RUN.findall(document.read_text()):
        path = ROOT / module.replace(".", "/")
        found = [one for one in (path.with_suffix(".py"), path / "__main__.py") if one.exists()]
        takes = "\n".join(one.read_text() for one in found)
        missing = [option for option in re.findall(r"--[a-z-]+", options) if f'"{option}"' not in takes]
        wrong += [module] * (not found) + missing
    assert wrong == []


def test_every_new_name_of_a_log_line_in_the_changelog_is_one() -> None:
    """An operator who follows a renaming finds the line."""
    renamed = _RENAMED.findall((ROOT / "CHANGELOG.md").read_text())
    assert renamed
    assert [name for name in renamed if name not in CODE] == []


@each_document
def test_every_header_is_in_the_code(document: Path) -> None:
    """A header that a document names is read or sent."""
    code = CODE.lower()
    assert [name for name in _HEADER.findall(document.read_text()) if name.lower() not in code] == []


def test_headers_that_pages_of_other_origins_may_read_are_those_told() -> None:
    """Scripts get what the page for front ends promises."""
    told = re.search(
        r"scripts may read (.+?) and\s+the rate limit's headers",
        section("docs/front-ends.md", "Tokens of an identity provider"),
        re.DOTALL,
    )
    assert told is not None
    assert {*quoted(told[1]), "RateLimit", "RateLimit-Policy"} <= set(cross_origin._READ)


def test_the_spans_of_the_page_are_those_of_the_code() -> None:
    """Each row names a span that is made, and each that is made has a row."""
    tree = ast.parse((ROOT / "infra/spans.py").read_text())
    made = {
        argument.value if isinstance(argument, ast.Constant) else str(_beginning(argument))
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in {"_span", "start_span"}
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant | ast.JoinedStr)
    }
    rows = [quoted(one)[0] for one in first_column(section("docs/traces.md", "What is in it"))]
    assert {one.partition(" ")[0] for one in rows} - {"POST"} == {str(one).partition(" ")[0] for one in made}


def _beginning(text: ast.JoinedStr) -> object:
    return text.values[0].value if isinstance(text.values[0], ast.Constant) else ""


def test_attributes_of_spans_are_those_of_the_conventions_module() -> None:
    """The page on traces names attributes as they are sent."""
    ours = {value for name, value in vars(tracing).items() if name.isupper() and isinstance(value, str)}
    told = [one for one in _DOTTED.findall((ROOT / "docs/traces.md").read_text()) if not one.startswith("traces.")]
    assert {one for one in told if not _NO_NAMES_OF_OURS.fullmatch(one)} <= ours


def _constants(*paths: Path) -> Iterator[str]:
    for path in paths:
        yield from _texts(ast.parse(path.read_text()))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_code_of_a_call_to_the_llm_has_a_row() -> None:
    """An operator finds the meaning of each code on an attempt."""
    words = {one for one in _constants(*GENERATION.glob("*.py")) if re.fullmatch(r"llm_[a-z_]+", one)}
    # An endpoint that cannot be reached leaves no attempt, and so no code.
    codes = words - set(Settings.model_fields) - {"llm_unavailable"}
    rows = {code for one in section("docs/llm.md", "Outcomes").splitlines() for code in quoted(one)}
    assert len(codes) > 10
    assert codes - rows == set()
    assert {code for code in rows if code.startswith("llm_")} - codes == set()


def _unpacked() -> Iterator[str]:
    """Yield what the code notes as taken off an answer."""
    for name in _KINDS_OF:
        for node in ast.walk(ast.parse((ROOT / f"consumers/generation/{name}.py").read_text())):
            noted: list[ast.AST] = []
            match node:
                case ast.AugAssign(target=ast.Name(id="kinds") | ast.Attribute(attr="kinds")):
                    noted = [node.value]
                case ast.Call(func=ast.Attribute(value=ast.Name(id="kinds") | ast.Attribute(attr="kinds"), attr="add")):
                    noted = [*node.args]
                case ast.Call(func=ast.Name(id="Source" | "OtherBody")):
                    noted = [*node.args[1:2]]
                case ast.keyword(arg="kinds"):
                    noted = [node.value]
            for part in noted:
                yield from filter(None, _texts(part))


def test_every_kind_of_packing_has_a_row() -> None:
    """`teamfit_llm_unpacked_total{kind}` counts what the table explains."""
    rows = {kind for one in first_column(section("docs/llm.md", "How an answer is read")) for kind in quoted(one)}
    assert set(_unpacked()) - rows == set()
    assert rows - set(_constants(*GENERATION.glob("*.py"))) == set()


def test_types_of_events_stand_with_the_topics_that_carry_them() -> None:
    """The table of types has each event, on its topics."""
    carried: dict[str, set[str]] = {}
    for topic, what in TOPICS.items():
        for model in what.carries:
            carried.setdefault(type_of(model), set()).add(topic)
    rows = re.findall(r"^\| `([\w.-]+)` \| ([^|]+) \|", section("docs/events.md", "The types"), re.MULTILINE)
    assert {name: set(quoted(topics)) for name, topics in rows} == carried
    assert {type_of(one) for one in (*get_args(JobEvent), OrganizationFact)} == carried.keys()


def test_attributes_of_events_are_those_of_the_models() -> None:
    """The table of attributes has each one that a request may have."""
    rows = {name for one in first_column(section("docs/events.md", "The attributes")) for name in quoted(one)}
    assert rows == set(JobRequested.model_fields)


def test_webhooks_are_of_the_types_that_are_told() -> None:
    """The page for receivers has each type that an endpoint may be sent, and no other."""
    rows = [one for one in first_column(section("docs/webhooks.md", "What arrives")) if one.startswith("`")]
    assert {quoted(one)[0] for one in rows} == {*EVENT_TYPES, TEST}


def test_what_a_webhook_holds_is_told() -> None:
    """A receiver finds each field of a body's `data` on the page."""
    rows = {
        quoted(row)[0]: set(quoted(row))
        for row in section("docs/webhooks.md", "What arrives").splitlines()
        if row.startswith("| `")
    }
    for model in TERMINAL:
        data = model.model_fields["data"].annotation
        assert data is not None
        assert set(data.model_fields) - {"organization_id"} <= rows[f"job.{type_of(model).split('.')[2]}"]
    assert set(Reached.model_fields) - {"organization_id"} <= rows[BUDGET]


def test_states_of_celery_stand_for_the_statuses_that_are_told() -> None:
    """The row of states has Celery's words and ours in one order."""
    found = re.search(r"^\| (`PENDING`.+?) \| (?:the status )?(.+?)[;|]", _from_celery(), re.MULTILINE)
    assert found is not None
    states, statuses = quoted(found[1]), quoted(found[2])
    assert [CELERY_STATES[one] for one in statuses] == states
    assert set(states) == set(CELERY_STATES.values())


def _from_celery() -> str:
    return (ROOT / "docs/from-celery.md").read_text()


def test_every_page_of_the_console_has_a_row() -> None:
    """The page explains each entry of the bar at the top."""
    bar = re.search(r"for path, name in \[(.+?)\]", (ROOT / "infra/console/templates/page.html").read_text())
    assert bar is not None
    names: Mapping[str, str] = dict(re.findall(r'\("([^"]+)", "([^"]+)"\)', bar[1]))
    assert set(names.values()) <= set(first_column(section("docs/console.md", "The pages")))
