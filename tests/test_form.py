"""The run form: the sections' types and bounds as a JSON schema, and changes applied to a parameter file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError, validate
from pydantic import BaseModel

from muomni.errors import UserError
from muomni.params import Params
from pipelines.form import ParamChanges, applied, chosen, keys, nested

TEXT = (Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8")
SCHEMA = ParamChanges.model_json_schema()


def leaves(model: type[BaseModel]) -> list[Any]:
    """All fields of a model and of the models in it that are no models themselves."""
    found = []
    for info in model.model_fields.values():
        kind = info.annotation
        found += leaves(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else [info]
    return found


def test_every_parameter_is_in_the_form_with_its_description_and_may_be_empty() -> None:
    registry, profile = len(Params.model_fields["registry"].annotation.model_fields), 1
    assert len(leaves(ParamChanges)) == len(leaves(Params)) - registry - profile
    lost = [info.title for info in leaves(ParamChanges) if not info.description]
    original = [info for info in leaves(Params) if not info.description]
    assert len(lost) == len(original)
    assert "required" not in SCHEMA and not any("required" in part for part in SCHEMA["$defs"].values())
    thinker = SCHEMA["$defs"]["ThinkerStageConfig"]["properties"]["lr"]
    assert thinker["exclusiveMinimum"] == 0 and thinker["maximum"] == 1 and "default" not in thinker
    assert SCHEMA["$defs"]["DeviceConfig"]["properties"]["name"]["enum"] == ["auto", "cpu", "cuda"]


@pytest.mark.parametrize(
    "changes",
    [
        {"a_thinker": {"steps": 0}},
        {"a_thinker": {"steps": "many"}},
        {"a_thinker": {"stepz": 3}},
        {"device": {"name": "tpu"}},
        {"e_omni": {"weights": {"name": -1}}},
        {"thinker": 5},
    ],
)
def test_wrong_values_do_not_fit_the_forms_schema(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate(changes, SCHEMA)


def test_changes_are_applied_and_nothing_else() -> None:
    form = ParamChanges.model_validate({"a_thinker": {"steps": 7}, "e_omni": {"weights": {"name": 0.5}}, "text": {}})
    assert chosen(form) == {"a_thinker": {"steps": 7}, "e_omni": {"weights": {"name": 0.5}}}
    text, params = applied(TEXT, form, "params.yaml")
    expected = yaml.safe_load(TEXT)
    expected["a_thinker"]["steps"], expected["e_omni"]["weights"]["name"] = 7, 0.5
    assert yaml.safe_load(text) == expected and params.a_thinker.steps == 7
    assert list(yaml.safe_load(text)) == list(expected)
    assert applied(TEXT, ParamChanges(), "params.yaml")[0] == TEXT, "no change leaves the file as it is, comments too"
    assert applied(TEXT, {"a_thinker": {"steps": params_steps()}}, "x")[0] == TEXT, "nor does the same value"


def test_an_empty_form_is_an_empty_object() -> None:
    """The page sends what it was given as default; a null in it would be refused."""
    assert ParamChanges().model_dump() == {} and ParamChanges().model_dump_json() == "{}"
    from pipelines.flows import train

    assert train.parameters.properties["changes"]["default"] == {}


def test_switches_are_a_choice_that_may_be_empty() -> None:
    """An untouched checkbox of the page sends false, which would change the parameter."""
    schema = SCHEMA["$defs"]["ThinkerConfig"]["properties"]["tie_embeddings"]
    assert schema["type"] == "string" and schema["enum"] == ["true", "false"]
    for value in ("true", True):
        form = ParamChanges.model_validate({"thinker": {"tie_embeddings": value}})
        assert form.model_dump() == {"thinker": {"tie_embeddings": "true"}}
        assert chosen(form) == {"thinker": {"tie_embeddings": True}}
    assert chosen(ParamChanges.model_validate({"thinker": {"tie_embeddings": False}})) == {
        "thinker": {"tie_embeddings": False}
    }
    assert not [info for info in leaves(ParamChanges) if info.annotation is bool]


def params_steps() -> int:
    """The steps that params.yaml has."""
    return int(yaml.safe_load(TEXT)["a_thinker"]["steps"])


def test_what_sections_have_in_common_is_checked() -> None:
    with pytest.raises(UserError, match=r"params.yaml: thinker.vocab_size: 99, but tokenizer.vocab_size is"):
        applied(TEXT, {"thinker": {"vocab_size": 99}}, "params.yaml")
    with pytest.raises(UserError, match="unknown key"):
        applied(TEXT, {"thinker": {"width": 99}}, "params.yaml")
    with pytest.raises(UserError, match="expected sections"):
        applied("- a", {}, "params.yaml")


def test_keys_name_every_single_value() -> None:
    found = keys()
    assert {"seed", "a_thinker.lr", "e_omni.weights.name", "device.memory_gb"} <= set(found)
    assert "speech.espeak_voices" not in found and "registry.name" not in found and "profile" not in found
    for key in found:
        node = yaml.safe_load(TEXT)
        for part in key.split("."):
            node = node[part]
        assert not isinstance(node, dict | list), key
    assert nested("a_thinker.lr", 0.1) == {"a_thinker": {"lr": 0.1}}
    with pytest.raises(UserError, match="a_thinker.lrr: no such parameter.*a_thinker.lr"):
        nested("a_thinker.lrr", 0.1)
