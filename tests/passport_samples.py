"""What a training and an evaluation leave to see and hear, as their stages write it."""

import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from muomni.evaluate.plots import draw_bars

RATE = 16000


def tone(path: Path, pitch: float, seconds: float = 0.4) -> None:
    """A sound to play."""
    wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)
    soundfile.write(path, wave, RATE, subtype="PCM_16")


def logged(folder: Path, steps: tuple[int, ...] = (100, 200), wrote: str = "") -> Path:
    """A training in ``metrics/train``."""
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps([{"step": s, "loss": 1 / s} for s in range(10, 210, 10)]))
    (folder / "valid.json").write_text(json.dumps([{"step": s, "valid_loss": 2 / s} for s in steps]))
    for step in steps:
        samples = folder / f"samples/step-{step:06d}"
        samples.mkdir(parents=True)
        said = wrote or f"at {step}"
        (samples / "answers.tsv").write_text(f"task\tquestion\twanted\tanswer\nname\tWhat?\ta dog\t{said}\n")
        (samples / "texts.tsv").write_text("said-0.wav\thibari\tTwo dogs.\n")
        Image.new("RGB", (8, 8), (0, 200, 0)).save(samples / "name.png")
        tone(samples / "said-0.wav", 300.0)
    return folder


def evaluated(folder: Path) -> None:
    """``metrics/samples`` and ``plots``: pictures with answers, spoken questions and answers, sentences."""
    samples, plots = folder / "metrics/samples", folder / "plots"
    for place in (samples, plots):
        place.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (112, 112), (200, 80, 0)).save(samples / "picture-scene-0.png")
    Image.new("RGB", (112, 112), (0, 80, 200)).save(samples / "spoken-spoken_scene-0.png")
    tone(samples / "spoken-spoken_scene-0.wav", 200.0)
    tone(samples / "spoken-spoken_scene-0.flac", 250.0)
    for number, signal in enumerate(("recording", "codec", "talker")):
        tone(samples / f"{signal}-0.wav", 300.0 + 50 * number)
    tables = {
        "pictures": [
            ("task", "file", "right", "question", "wanted", "answer"),
            ("scene", "picture-scene-0.png", "0", "Where is the dog?", "At the top.", "At the bottom."),
        ],
        "spoken": [
            ("task", "file", "question", "wanted", "answer", "judged"),
            ("spoken_scene", "spoken-spoken_scene-0.wav", "What is it?", "A cat.", "A cat.", "a hat"),
        ],
        "speech": [
            ("signal", "file", "text", "judged"),
            *((signal, f"{signal}-0.wav", "Two dogs.", "two logs") for signal in ("recording", "codec", "talker")),
        ],
        "answers": [("task", "kind", "right", "question", "wanted", "answer"), ("name", "", "1", "What?", "a", "a")],
    }
    for name, rows in tables.items():
        (samples / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    draw_bars(plots / "accuracy.png", "Right answers", {"scene": {"value": 0.5, "n": 8, "interval": [0.2, 0.8]}})
