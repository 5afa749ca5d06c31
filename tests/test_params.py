"""params.yaml as a whole, what its sections must agree on, and the table of parameters."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_models import OMNI

from muomni.config import SECTIONS
from muomni.errors import UserError
from muomni.parameter_table import SPECIFIED, SPECIFIED_TOTAL, count_components, read_shapes, render
from muomni.params import Params, read_params

ROOT = Path(__file__).parent.parent
PROFILES = ROOT / "profiles"


def tiny() -> dict[str, Any]:
    return yaml.safe_load((PROFILES / "tiny.yaml").read_text())


def write(folder: Path, params: object) -> Path:
    path = folder / "params.yaml"
    path.write_text(params if isinstance(params, str) else yaml.safe_dump(params))
    return path


def change(params: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    *parents, name = key.split(".")
    place = params
    for parent in parents:
        place = place[parent]
    place[name] = value
    return params


def test_the_schema_has_every_section_once() -> None:
    assert tuple(Params.model_fields) == SECTIONS


@pytest.mark.parametrize("name", ["tiny", "smoke", "speech", "voices", "base", "compact"])
def test_every_profile_is_whole_and_consistent(name: str) -> None:
    params = read_params(PROFILES / f"{name}.yaml")
    assert params.profile == name


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("thinker.vocab_size", 512, ["thinker.vocab_size: 512", "tokenizer.vocab_size is"]),
        ("talker.codebooks", 3, ["talker.codebooks: 3", "codec.codebooks is 2"]),
        ("talker.codes", 64, ["talker.codes: 64", "codec.codes is 128"]),
        ("audio_encoder.n_mels", 80, ["audio_encoder.n_mels: 80", "mel.n_mels is 128"]),
        ("codec.n_mels", 80, ["codec.n_mels: 80", "mel.n_mels is 128"]),
        ("images.size_px", 128, ["images.size_px: 128", "vision_encoder.image_size is 112"]),
        ("speech.sample_rate", 24000, ["speech.sample_rate: 24000", "mel.sample_rate is 16000"]),
        ("talker.voices", ["hibari", "anna"], ["talker.voices: speech has no 'anna'", "hibari, espeak:en-us+f2"]),
        ("mel.hop_length", 200, ["mel.hop_length: 200", "100 frames a second", "set it to 160"]),
        ("fusion.image_grid", 9, ["fusion.image_grid: 9", "7"]),
        ("a_thinker.context", 4096, ["a_thinker.context: 4096", "thinker.context"]),
        ("audio_encoder.positions", 16, ["speech.max_seconds", "audio_encoder.positions hold, 1.28"]),
        ("talker.frames", 100, ["speech.max_seconds", "talker.frames hold, 2"]),
    ],
)
def test_sections_that_disagree_are_named(tmp_path: Path, key: str, value: object, said: list[str]) -> None:
    path = write(tmp_path, change(tiny(), key, value))
    with pytest.raises(UserError) as caught:
        read_params(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert all(part in message for part in said), message


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("thinker.n_layers", 0, ["thinker.n_layers", "greater than or equal to 1"]),
        ("thinker.n_layers", "four", ["thinker.n_layers", "'four'"]),
        ("thinker.n_layers", 2.5, ["thinker.n_layers"]),
        ("thinker.n_layers", True, ["thinker.n_layers"]),
        ("thinker.n_layer", 2, ["thinker.n_layer: unknown key", "did you mean 'n_layers'?"]),
        ("thinker.n_heads", 5, ["thinker", "not a multiple"]),
        ("e_omni.lr", -1, ["e_omni.lr"]),
        ("b_audio_encoder.steps", None, ["b_audio_encoder.steps"]),
        ("device.name", "gpu", ["device.name", "'gpu'"]),
        ("seed", -1, ["seed"]),
        ("tokenizer", None, ["tokenizer"]),
        ("tokenizer", [1], ["tokenizer"]),
        ("thinkr", {}, ["unknown section 'thinkr'", "did you mean 'thinker'"]),
    ],
)
def test_bad_keys_and_values_are_named(tmp_path: Path, key: str, value: object, said: list[str]) -> None:
    path = write(tmp_path, change(tiny(), key, value))
    with pytest.raises(UserError) as caught:
        read_params(path)
    assert "\n" not in str(caught.value) and all(part in str(caught.value) for part in said), caught.value


@pytest.mark.parametrize("section", [name for name, field in Params.model_fields.items() if field.is_required()])
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    params = tiny()
    params.pop(section)
    with pytest.raises(UserError, match=rf"{section}: missing"):
        read_params(write(tmp_path, params))


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "just words", "\x00", "a: !!python/object:os.system {}"])
def test_no_parameters_in_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as caught:
        read_params(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="muomni profile tiny"):
        read_params(tmp_path / "params.yaml")


def test_base_has_the_specified_sizes() -> None:
    """Each row within 2 %, and the total, which is the sum of the rows and nothing else."""
    components, others = count_components(*read_shapes(PROFILES / "base.yaml"))
    assert components.keys() == SPECIFIED.keys()
    for name, wanted in SPECIFIED.items():
        assert components[name] / 1e6 == pytest.approx(wanted, rel=0.02), name
    assert sum(components.values()) / 1e6 == pytest.approx(SPECIFIED_TOTAL, rel=0.02)
    assert components["RVQ codec"] == 49_344  # by hand: 128 x 64 + 64, 2 x 128 x 64, 64 x 128 x 3 + 128
    assert components["Projectors"] == 128 * 256 + 256 + 192 * 256 + 256
    assert others["Talker's conditioning"] > 0 and others["CTC head, training only"] == 192 * 4 * 29 + 4 * 29
    assert others["places in a picture"] == 256 and len(others) == 4


def test_base_is_the_specified_shape() -> None:
    cfg, _ = read_shapes(PROFILES / "base.yaml")
    thinker, vision, audio, talker = cfg.thinker, cfg.vision_encoder, cfg.audio_encoder, cfg.talker
    assert (thinker.vocab_size, thinker.d_model, thinker.n_layers, thinker.n_heads) == (32000, 256, 4, 4)
    assert (thinker.n_kv_heads, thinker.d_ff, thinker.context, thinker.tie_embeddings) == (2, 1024, 2048, False)
    assert (vision.image_size, vision.patch_size, vision.d_model, vision.n_layers) == (224, 16, 128, 4)
    assert (audio.n_mels, audio.d_model, audio.n_layers, audio.n_heads, audio.d_ff) == (128, 192, 4, 3, 768)
    assert (talker.d_model, talker.n_layers, talker.n_heads, talker.n_kv_heads, talker.d_ff) == (192, 4, 3, 1, 768)
    assert (cfg.codec.codebooks, cfg.codec.codes, cfg.fusion.image_grid) == (2, 128, 0)


def test_compact_is_base_with_the_other_vocabulary() -> None:
    base, compact = (read_shapes(PROFILES / f"{name}.yaml")[0] for name in ("base", "compact"))
    assert (compact.thinker.vocab_size, compact.thinker.tie_embeddings) == (5000, True)
    same = {"vocab_size": 32000, "tie_embeddings": False}
    assert base == compact.model_copy(update={"thinker": compact.thinker.model_copy(update=same)})


def test_the_table_counts_what_a_real_model_has() -> None:
    from muomni.omni import Omni

    _, stage_c = read_shapes(PROFILES / "tiny.yaml")
    components, others = count_components(OMNI, stage_c)
    total = sum(p.numel() for p in Omni(OMNI).parameters())
    assert sum(components.values()) + others["Talker's conditioning"] + others["places in a picture"] == total


def test_the_table_prints_both_vocabularies_and_every_row() -> None:
    text = render(*read_shapes(PROFILES / "base.yaml"), "base")
    for part in (*SPECIFIED, "total", "20.32 M", "25.65 M", "5,000", "32,000", "5.21 M", "CTC head", "Talker's cond"):
        assert part in text, part
