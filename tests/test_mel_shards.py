"""Mel shards: every recording with its frames, text and split; damaged corpora."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_models import MEL

from muomni.data.mel_shards import write_mel_shards
from muomni.data.shards import read_shards
from muomni.errors import UserError
from muomni.mel import count_frames, log_mel


def corpus(folder: Path, rate: int = 16000) -> list[dict[str, Any]]:
    """Seven tones of growing length and pitch as recordings."""
    rows = []
    for number, split in enumerate(["train"] * 4 + ["valid"] + ["test"] * 2):
        seconds = 0.3 + 0.1 * number
        wave = 0.5 * np.sin(2 * math.pi * (300 + 200 * number) * np.arange(round(seconds * rate)) / rate)
        file = f"audio/{split}/{number:06d}-a.flac"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / file, wave, rate, subtype="PCM_16")
        row = {"id": f"{number:06d}-a", "split": split, "text": f"Tone {number}.", "speaker": "hibari"}
        rows.append({**row, "kind": "own", "key": f"tone-{number}", "seconds": round(seconds, 3), "file": file})
    (folder / "utterances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_every_recording_is_there_with_its_frames(tmp_path: Path) -> None:
    rows = corpus(tmp_path / "speech")
    index = write_mel_shards(tmp_path / "speech", MEL, tmp_path / "mels")
    found = {
        sample["__key__"]: (split, sample)
        for split in ("train", "valid", "test")
        for sample in read_shards(tmp_path / "mels", split)
    }
    assert len(found) == len(rows) and index["speakers"]["test"]["hibari"]["samples"] == 2
    for row in rows:
        split, sample = found[row["id"]]
        wave, _ = soundfile.read(io.BytesIO((tmp_path / "speech" / row["file"]).read_bytes()), dtype="float32")
        assert split == row["split"]
        assert sample["json"] == {key: row[key] for key in ("text", "speaker", "seconds", "kind", "key")}
        assert sample["npy"].dtype == np.float16 and sample["npy"].shape == (
            count_frames(len(wave), MEL),
            128,
        )
        expected = log_mel(torch.from_numpy(wave), MEL).numpy()
        assert np.abs(sample["npy"].astype(np.float32) - expected).max() < 0.01


def test_bytes_are_the_same_again_and_with_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus(tmp_path / "speech")
    monkeypatch.setattr("muomni.data.mel_shards.PER_TASK", 2)
    assert write_mel_shards(tmp_path / "speech", MEL, tmp_path / "one") == write_mel_shards(
        tmp_path / "speech", MEL, tmp_path / "two", workers=2
    )


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    rows = corpus(tmp_path / "speech", 24000)
    write_mel_shards(tmp_path / "speech", MEL, tmp_path / "mels")
    sample = next(iter(read_shards(tmp_path / "mels", "train")))
    assert len(sample["npy"]) == count_frames(round(rows[0]["seconds"] * 16000), MEL)


def test_damaged_corpus_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "speech"
    with pytest.raises(UserError, match="dvc repro corpus-speech"):
        write_mel_shards(folder, MEL, tmp_path / "mels")
    rows = corpus(folder)
    (folder / rows[2]["file"]).write_bytes((folder / rows[2]["file"]).read_bytes()[:200])
    with pytest.raises(UserError, match=f"{rows[2]['id']}.*--force corpus-speech"):
        write_mel_shards(folder, MEL, tmp_path / "mels")
    (folder / rows[2]["file"]).unlink()
    with pytest.raises(UserError, match=f"{rows[2]['id']}.*--force corpus-speech"):
        write_mel_shards(folder, MEL, tmp_path / "mels")
    (folder / "utterances.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(UserError, match="utterances.jsonl:1"):
        write_mel_shards(folder, MEL, tmp_path / "mels")
    assert not list((tmp_path / "mels").glob("index.json"))
