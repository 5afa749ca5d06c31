"""The report of a run: figures beside others', curves, a sound."""

import json
import struct
from pathlib import Path

from pipelines.results import Measured, curves, figures, measured, sound


def one(value: float, low: float, high: float) -> dict:
    """A figure."""
    return {"value": value, "n": 40, "interval": [low, high]}


def test_figures_are_marked_only_on_the_same_held_out_data() -> None:
    new = Measured({"accuracy": one(0.8, 0.75, 0.85), "dictation_cer": one(0.2, 0.15, 0.25)}, "a")
    champion = Measured({"accuracy": one(0.6, 0.55, 0.65), "dictation_cer": one(0.18, 0.14, 0.22)}, "a")
    other = Measured({"accuracy": one(0.9, 0.8, 0.95)}, "b")
    page = figures(new, {"champion": champion, "base": other})
    accuracy, cer = (line for line in page.splitlines() if "accuracy" in line or "dictation" in line)
    cells = [cell.strip() for cell in accuracy.strip("|").split("|")]
    assert cells[0] == "accuracy" and cells[1] == "higher" and cells[2].startswith("**0.8 [0.75, 0.85] n 40")
    assert cells[4] == "++" and cells[6] == ""
    assert [cell.strip() for cell in cer.strip("|").split("|")][4] == "-", "worse, but the intervals overlap"
    assert "Not compared with base" in page and "Not compared with champion" not in page


def test_curves_are_a_picture_of_each_training(tmp_path: Path) -> None:
    assert curves(tmp_path) is None
    for stage in ("a-thinker", "b-audio-encoder", "d-codec", "e-omni"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "train.json").write_text(json.dumps([{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}]))
    picture = curves(tmp_path)
    assert picture is not None and picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 600 and 200 < height < 1000


def test_the_sound_is_speech_of_the_whole_model_else_of_a_training(tmp_path: Path) -> None:
    assert sound(tmp_path) is None and measured(tmp_path) is None
    sample = tmp_path / "train/d-talker/samples/step-000100/said-0.wav"
    sample.parent.mkdir(parents=True)
    sample.write_bytes(b"RIFF")
    assert sound(tmp_path) == sample
    spoken = tmp_path / "samples/spoken-read_aloud-0.wav"
    spoken.parent.mkdir()
    spoken.write_bytes(b"RIFF")
    assert sound(tmp_path) == spoken
