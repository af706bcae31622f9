"""The file of endpoints: what it may hold, and that each mistake is named with the file, the key and the fix."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from consumers.generation.endpoint_file import EndpointSpec, Rule, endpoints_of, settings_of
from infra.errors import InvalidSetting
from infra.settings import Settings

_WHOLE: dict[str, Any] = {
    "name": "ours",
    "base_url": "http://llm.internal:8000/v1",
    "key_variable": "OURS_KEY",
    "model": "qwen",
    "form": "json_object",
    "input_price": 150_000,
    "output_price": 600_000,
    "currency": "EUR",
    "weight": 2,
    "context_tokens": 32_000,
    "region": "eu",
}
_SHORT = {"name": "short", "model": "m"}


def settings_with(path: Path, text: str) -> Settings:
    """Return settings that name a file with this text."""
    path.write_text(text)
    return Settings(llm_endpoints=str(path))


def test_without_a_file_there_is_nothing_to_read() -> None:
    """The plain settings name the one endpoint."""
    assert endpoints_of(Settings()) is None


def test_toml_and_json_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each endpoint becomes the settings of a worker that has it alone; its key comes from the environment."""
    monkeypatch.setenv("OURS_KEY", "secret\n")
    as_json = json.dumps({"endpoint": [_WHOLE, _SHORT]})
    as_toml = "".join(
        "[[endpoint]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in one.items())
        for one in (_WHOLE, _SHORT)
    )
    read = [endpoints_of(settings_with(tmp_path / "file", text)) for text in (as_json, as_toml)]
    assert read[0] is not None
    assert read[0] == read[1]
    only = settings_of(Settings(openai_api_key=SecretStr("elsewhere")), read[0].endpoint[0])
    assert only.openai_api_key is not None
    assert only.openai_api_key.get_secret_value() == "secret"
    assert (only.model, only.openai_base_url, only.completion_format) == ("qwen", _WHOLE["base_url"], "json_object")
    assert settings_of(Settings(openai_api_key=SecretStr("elsewhere")), read[0].endpoint[1]).openai_api_key is None


_WRONG: list[tuple[Any, str]] = [
    ({}, "endpoint is missing; add it"),
    ({"endpoint": []}, "endpoint cannot be used"),
    ([], "the document cannot be used"),
    ({"endpoint": [{"name": "a"}]}, "endpoint 1 (a).model is missing; add it"),
    ({"endpoint": [_SHORT, {"model": "m"}]}, "endpoint 2.name is missing; add it"),
    ({"endpoint": [{**_SHORT, "request_per_minute": 1}]}, "request_per_minute is unknown; leave it out, or mend its"),
    ({"endpoint": [{**_SHORT, "context_tokens": 0}]}, "endpoint 1 (short).context_tokens cannot be used"),
    ({"endpoint": [{**_SHORT, "weight": -1}]}, "endpoint 1 (short).weight cannot be used"),
    ({"endpoint": [{**_SHORT, "base_url": "llm:80"}]}, "endpoint 1 (short).base_url cannot be used"),
    ({"endpoint": [{**_SHORT, "form": "xml"}]}, "endpoint 1 (short).form cannot be used"),
    ({"endpoint": [{**_SHORT, "key": "a", "key_variable": "B"}]}, "`key` and `key_variable`; keep one of the two"),
    ({"endpoint": [{**_SHORT, "key": "two words"}]}, "endpoint 1 (short).key cannot be used"),
    ({"endpoint": [{**_SHORT, "key_variable": "NOT_SET"}]}, "short's `key_variable` is NOT_SET, which is not set; set"),
    ({"endpoint": [{**_SHORT, "input_price": 1}]}, "`input_price` and `output_price`; give both, or none"),
    ({"endpoint": [{**_SHORT, "input_price": 1, "output_price": 2}]}, "prices and no `currency`; add one"),
    ({"endpoint": [_SHORT, _SHORT]}, "two endpoints have the `name` short; rename one"),
    ({"endpoint": [_SHORT], "rule": [{"regions": ["eu"]}]}, "rule 1 allows none of the endpoints; allow one"),
    ({"endpoint": [_SHORT], "rule": [{"dearest_input_price": 5}]}, "rule 1 allows none of the endpoints"),
    ({"endpoint": [_SHORT], "rule": [{}, {}]}, "two rules are for every other organization; leave one out"),
    ({"endpoint": [_SHORT], "rule": [{"organizations": ["o"]}, {"organizations": ["o"]}]}, "two rules are for o"),
    ({"endpoint": [_SHORT], "rule": [{"region": ["eu"]}]}, "rule 1.region is unknown"),
]


@pytest.mark.parametrize(("document", "said"), _WRONG)
def test_a_mistake_is_named_with_its_file_its_key_and_its_fix(tmp_path: Path, document: object, said: str) -> None:
    """One line says it all, and repeats no key."""
    path = tmp_path / "endpoints.json"
    with pytest.raises(InvalidSetting) as error:
        endpoints_of(settings_with(path, json.dumps(document) if document != [] else "[]"))
    message = str(error.value)
    assert message.startswith(f"TEAMFIT_LLM_ENDPOINTS names {path}, ")
    assert said in message or document == []
    assert "two words" not in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["{", "endpoint = [", "\x00", "[[endpoint]]\nname = 1 2"])
def test_what_is_neither_toml_nor_json_is_said_to_be(tmp_path: Path, text: str) -> None:
    """The parser's own words say where."""
    with pytest.raises(InvalidSetting, match="neither TOML nor JSON"):
        endpoints_of(settings_with(tmp_path / "file", text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """So is a folder."""
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(InvalidSetting, match="cannot be read"):
            endpoints_of(Settings(llm_endpoints=str(path)))


def test_what_an_endpoint_does_not_say_fails_a_rule_that_asks() -> None:
    """An unknown region or price may be any."""
    plain = EndpointSpec(name="a", model="m")
    priced = EndpointSpec(name="a", model="m", input_price=1, output_price=2, currency="EUR", region="eu")
    for rule in (
        Rule(regions=frozenset({"eu"})),
        Rule(dearest_input_price=1),
        Rule(dearest_output_price=2),
    ):
        assert not rule.allows(plain, ("prompt",))
        assert rule.allows(priced, ("prompt",))
    assert Rule().allows(plain, ("prompt",))
    assert not Rule(forms=frozenset({"json_schema"})).allows(plain, ("prompt",))
