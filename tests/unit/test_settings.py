"""Settings as people and platforms write them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from infra.errors import InvalidSetting
from infra.settings import Settings

_CASES = [json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "settings_cases").glob("*.json"))]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours, and a working directory without a `.env` file."""
    ours = {Settings.variable(name) for name in Settings.model_fields}
    for name in os.environ:
        if name.startswith("TEAMFIT_") or name in ours:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case["name"])
def test_variables_as_platforms_set_them(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read, or passed over as if it were not set; none is an error of a process that reads it."""
    for name, value in case["environment"].items():
        monkeypatch.setenv(name, value)
    with capture_logs() as logged:
        read = Settings.read()
    assert read.worker_port is None
    assert read.openai_api_key is None or read.openai_api_key.get_secret_value() == "sk-test"
    assert read.database_url == case["environment"].get("DATABASE_URL", "postgresql://localhost:5432/teamfit")
    ignored = [line["variable"] for line in logged if line["event"] == "setting.ignored"]
    assert ignored == (["TEAMFIT_WORKER_PORT"] if "service-link" in case["name"] else [])


_WRONG = (
    *("", "  ", "\t\n", "many", "-1", "0", "0.5", "1.5", "inf", "-inf", "nan", "1e400", "9" * 40, "true", "null", "[]"),
    *("tcp://10.96.0.12:9100", "TCP://[::1]:1", "a\nb", "sk-tést", '"quoted"', "\ufeff7\u200b", "7 ", "0x10", "٣"),
)


@pytest.mark.parametrize(
    ("name", "value", "example"),
    [
        ("cors_origins", "banana", "`https://app.example.com`"),
        ("cors_origins", "https://app.example.com/path", "`https://app.example.com`"),
        ("trusted_proxies", "zz", "Addresses and networks of proxies"),
        ("trusted_proxies", "10.0.0.0/8 10.1.0.1", "Addresses and networks of proxies"),
        ("root_path", "teamfit", "`/teamfit`"),
    ],
)
def test_a_value_of_another_form_is_told_which_form_it_needs(
    name: str, value: str, example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of the setting's description, with its example, and without a pattern."""
    monkeypatch.setenv(Settings.variable(name), value)
    said = _refusal(Settings.read(), name)
    assert said is not None
    assert example in said
    assert "pattern" not in said


@pytest.mark.parametrize("value", ["*", "10.0.0.0/8", "127.0.0.1, ::1", "2001:db8::/32,10.1.2.3"])
def test_addresses_and_networks_of_proxies_are_taken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As uvicorn reads them."""
    monkeypatch.setenv("TEAMFIT_TRUSTED_PROXIES", value)
    assert Settings.read().trusted_proxies == value


@pytest.mark.parametrize("name", Settings.model_fields)
def test_any_value_of_any_variable_is_read_or_refused_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading never fails; asking gives a value of the field's type, or one line with the variable and no secret."""
    variable = Settings.variable(name)
    for value in _WRONG:
        monkeypatch.setenv(variable, value)
        read = Settings.read()
        said = _refusal(read, name)
        if value.strip() == "":
            assert (said, read) == (None, Settings(_env_file=None))
            assert name not in read.model_fields_set
        elif said is not None:
            assert said.startswith(f"{variable} ")
            assert "\n" not in said
            assert value not in said or name not in {"openai_api_key", "signing_key"}
        for other in Settings.model_fields.keys() - {name}:
            getattr(read, other)


def _refusal(read: Settings, name: str) -> str | None:
    try:
        getattr(read, name)
    except InvalidSetting as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TEAMFIT_MAX_ATTEMPTS", "many", "is 'many', which cannot be used: it must be a whole number"),
        *[
            (
                "TEAMFIT_GENERATION_TIMEOUT_S",
                text,
                "it is no number of seconds, such as 15; mend it, or unset it for 120",
            )
            for text in ("15s", "15 s", "1m", "1,000", "PT15S", "15 # seconds")
        ],
        ("TEAMFIT_TRUSTED_PROXIES", "10.0.0.0/33", "'10.0.0.0/33' is no address or network, such as 10.0.0.0/8"),
        ("TEAMFIT_WORKER_PORT", "70000", "it must be 65535 or less; mend it, or unset it"),
        ("TEAMFIT_DATABASE_POOL_SIZE", "0", "it must be 1 or more; mend it, or unset it for 10"),
        ("TEAMFIT_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'; mend it, or unset it for info"),
        ("OPENAI_API_KEY", "sk-one\nsk-two", "cannot be used: it holds a blank, a line break or a letter"),
    ],
)
def test_a_refusal_names_the_problem_and_the_fix(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable first, then what is wrong with the value, then what to do."""
    monkeypatch.setenv(variable, value)
    read = Settings.read()
    (name,) = (name for name in Settings.model_fields if Settings.variable(name) == variable)
    assert says in str(_refusal(read, name))
    assert "sk-one" not in str(_refusal(read, name))


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        *[("model", quoted, "a model") for quoted in ("'a model'", '"a model"', ' "a model" ', "'a model '")],
        ("model", "it's", "it's"),
        ("model", "'a' and 'b'", "'a' and 'b'"),
        ("openai_api_key", '"sk-x"', "sk-x"),
        # Others sign with the same bytes.
        ("signing_key", f"'{'x' * 32}'", f"'{'x' * 32}'"),
        ("max_attempts", "'5'", 5),
        ("console", '"true"', True),
        *[("console", yes, True) for yes in ("True", "YES", "on", "t", "1")],
        ("generation_timeout_s", "1e2", 100.0),
        *[("log_level", word, "warning") for word in ("WARNING", "warn", "Warn")],
        *[("log_format", word, "json") for word in ("JSON", "Json")],
        *[("completion_format", word, "json_schema") for word in ("JSON_SCHEMA", "json-schema")],
        *[("root_path", path, "/teamfit") for path in ("/teamfit", "/teamfit/")],
        ("root_path", "/", ""),
        (
            "cors_origins",
            "https://App.Example.com:443/, http://localhost:3000,",
            "https://app.example.com,http://localhost:3000",
        ),
        ("cors_origins", "http://a.example:80", "http://a.example"),
        ("cors_origins", "http://a.example:443", "http://a.example:443"),
        ("trusted_proxies", "10.0.0.0/8,", "10.0.0.0/8"),
        ("trusted_proxies", "10.1.2.3/8", "10.0.0.0/8"),
        *[
            ("openai_base_url", f"https://h/v1{end}", "https://h/v1")
            for end in ("", "/", "//", "/chat/completions", "/chat/completions/", "/completions", "/responses")
        ],
        (
            "openai_base_url",
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://x.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
        ),
        ("openai_base_url", "https://", "https://"),
    ],
)
def test_a_value_in_another_spelling_is_what_it_means(
    name: str, written: str, meant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quotation marks that a platform hands on, capitals, a last slash, a known port, the address of a call."""
    monkeypatch.setenv(Settings.variable(name), written)
    value = getattr(Settings.read(), name)
    assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == meant


@pytest.mark.parametrize(
    "line",
    [
        "OPENAI_API_KEY: sk-s3cret",
        "set OPENAI_API_KEY=sk-s3cret",
        "setx OPENAI_API_KEY sk-s3cret",
        "$env:OPENAI_API_KEY='sk-s3cret'",
        "OPENAI_API_KEY='sk-s3cret",
        "OPENAI_API_KEY=\"sk-s3cret\" 'b'",
        '{"OPENAI_API_KEY": "sk-s3cret"}',
        "<<<<<<< OPENAI_API_KEY=sk-s3cret",
    ],
)
def test_a_line_of_the_env_file_that_sets_nothing_is_named(line: str) -> None:
    """A default would take the place of what it says: the line and the variable are told, and no secret."""
    Path(".env").write_text(f"# OPENAI_API_KEY: in a comment\nTEAMFIT_MODEL=m\n{line}\n")
    with pytest.raises(InvalidSetting, match=r"line 3 that is not NAME=value, so that OPENAI_API_KEY would") as refused:
        Settings.read()
    assert "s3cret" not in str(refused.value)


def test_other_lines_of_the_env_file_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs read the same file."""
    Path(".env").write_text("[section]\nset PATH=x\nvim: x\nTEAMFIT_MODEL=m\n")
    assert Settings.read().model == "m"


def test_misspelt_variables_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name that was probably meant, wherever they stand; what Kubernetes sets for a Service is not ours."""
    misspelt = {"TEAMFIT_MAXATTEMPTS": "TEAMFIT_MAX_ATTEMPTS", "TEAMFIT_WORKER_PROT": "TEAMFIT_WORKER_PORT"}
    for name in misspelt:
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("TEAMFIT_API_PORT", "tcp://10.96.0.13:8000")
    monkeypatch.setenv("TEAMFIT_API_SERVICE_HOST", "10.96.0.13")
    monkeypatch.setenv("TEAMFIT_API_PORT_8000_TCP_ADDR", "10.96.0.13")
    monkeypatch.setenv("TEAMFIT_API_SERVICE_PORT_HTTP", "8000")
    Path(".env").write_text("TEAMFIT_LOG_LEVL=debug\n")
    with capture_logs() as logged:
        Settings.read()
    expected = misspelt | {"TEAMFIT_LOG_LEVL": "TEAMFIT_LOG_LEVEL"}
    assert {line["variable"]: line["meant"] for line in logged if line["event"] == "setting.unknown"} == expected


@pytest.mark.parametrize(
    "written",
    [
        b"TEAMFIT_MODEL=a model\nOPENAI_API_KEY=sk-test\n",
        b"\xef\xbb\xbfTEAMFIT_MODEL=a model\nOPENAI_API_KEY=sk-test\n",
        b"TEAMFIT_MODEL=a model\r\nOPENAI_API_KEY=sk-test\r\n",
        b"export TEAMFIT_MODEL='a model'\nexport OPENAI_API_KEY=\"sk-test\"\n",
        b'# a comment\n\n TEAMFIT_MODEL = "a model" # why\n\nOPENAI_API_KEY=sk-test  ',
    ],
)
def test_an_env_file_may_come_from_any_editor(written: bytes) -> None:
    """A byte order mark, line ends of another system, `export` and quotes change nothing."""
    Path(".env").write_bytes(written)
    read = Settings.read()
    assert read.model == "a model"
    assert read.openai_api_key is not None
    assert read.openai_api_key.get_secret_value() == "sk-test"


def test_a_blank_variable_leaves_the_env_file_its_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one that is not set, so the next source is asked."""
    Path(".env").write_text("TEAMFIT_MODEL=from-the-file\n")
    monkeypatch.setenv("TEAMFIT_MODEL", "")
    assert Settings.read().model == "from-the-file"


def test_an_env_file_that_is_no_text_is_named() -> None:
    """As an editor of another system may write it: one line, no traceback."""
    Path(".env").write_bytes("TEAMFIT_MODEL=a\n".encode("utf-16"))
    with pytest.raises(InvalidSetting, match=r"^\.env in the working directory cannot be read as UTF-8 text"):
        Settings.read()
