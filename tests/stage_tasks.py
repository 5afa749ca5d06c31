"""The smallest data that every training stage finds something in, and stages' tasks on it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from small_models import AUDIO, CODEC, GRIFFIN_LIM, MEL, OMNI, TALKER, small_omni

from muomni.audio_encoder import AudioEncoder, CTCHead
from muomni.codec import Codec
from muomni.data.files import sha256_file
from muomni.data.shards import ShardWriter, write_index
from muomni.data.speech import load_recordings
from muomni.device import DeviceConfig, pick_device
from muomni.mel import log_mel
from muomni.talker import TalkerConfig
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.d_talker import TalkerStageConfig, TalkerTask
from muomni.train.e_omni import OmniStageConfig, OmniTask, TaskWeights
from muomni.train.speaking import ALIGNMENTS, aligned_utterances, prepare_utterances, save_alignments

LOOP: dict[str, Any] = {
    "steps": 2,
    "batch_size": 4,
    "accumulate": 1,
    "lr": 0.001,
    "muon_lr": 0.0,
    "weight_decay": 0.0,
    "warmup": 0,
    "min_lr": 0.1,
    "clip": 1.0,
    "eval_every": 2,
    "save_every": 2,
    "checkpointing": False,
    "max_bad_steps": 0,
}
TEXTS = ["a dog", "the red fox", "three cats", "it is a lazy dog"]


def wave(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A sound that differs with its seed."""
    t = np.arange(int(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * (200 + 90 * seed) * t * (1 + 0.1 * t))).astype(np.float32)


def flac(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="FLAC")
    return buffer.getvalue()


CPU = pick_device(DeviceConfig(name="cpu", precision="fp32", threads=0, memory_gb=None))


def png(colour: tuple[int, int, int], size: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_data(root: Path) -> Path:
    """Mel, image and conversation shards and tokens, of a few samples, in a folder."""
    made: dict[str, dict[str, Any]] = {"mels": {}, "images": {}, "conversations": {}}
    for split in ("train", "valid"):
        with ShardWriter(root / "mels", split, 100) as writer:
            for n, text in enumerate([*TEXTS, "far too many words for such a very short recording of nothing"]):
                mel = (
                    log_mel(torch.from_numpy(wave(n, 0.2 if n == 4 else 1.0 + 0.1 * n)), MEL).numpy().astype(np.float16)
                )
                speaker = "espeak:en+m3" if n == 2 else "hibari"
                about = {"text": text, "speaker": speaker, "seconds": 1.0, "kind": "statement", "key": f"k{n % 2}"}
                writer.write(f"{split}-{n}", {"npy": mel, "json": about})
        made["mels"][split] = writer.shards
        with ShardWriter(root / "images", split, 100) as writer:
            for n, (name, colour) in enumerate((("dog", (200, 0, 0)), ("cat", (0, 200, 0)), ("fox", (0, 0, 200)))):
                thing = {"name": name, "group": "mammal", "colour": None, "box": [0.25, 0.25, 0.75, 0.75]}
                background = ("pink", "blue", None)[n]
                about = {"kind": "single", "layout": "single", "background": background, "caption": f"a {name}"}
                writer.write(f"{split}-{n}", {"png": png(colour), "json": {**about, "objects": [thing], "key": name}})
        made["images"][split] = writer.shards
        with ShardWriter(root / "conversations", split, 100) as writer:
            for n in range(6):
                picture = {"type": "image", "member": "0.png"}
                sound = {"type": "audio", "member": "0.flac"}
                question = [picture, {"type": "text", "text": "What is it?"}] if n % 2 else [sound]
                answer = {"role": "assistant", "content": [{"type": "text", "text": TEXTS[n % 4]}], "speech": False}
                messages = [{"role": "user", "content": question}, answer]
                about = {"task": "name" if n % 2 else "dictation", "kind": "what" if n % 2 else "hibari"}
                about |= {"messages": messages, "targets": ["dog"], "key": f"k{n}"}
                member = {"0.png": png((40 * n, 0, 0))} if n % 2 else {"0.flac": flac(wave(n, 1.0 + 0.1 * n))}
                writer.write(f"{split}-{n}", {"json": about, **member})
        made["conversations"][split] = writer.shards
    for kind, shards in made.items():
        write_index(root / kind, shards, [])
    (root / "tokens").mkdir()
    splits = {}
    for split in ("train", "valid"):
        np.arange(300, dtype="<u2").tofile(root / "tokens" / f"{split}.bin")
        splits[split] = {"file": f"{split}.bin", "tokens": 300, "bytes": 900}
        splits[split]["sha256"] = sha256_file(root / "tokens" / f"{split}.bin")
    (root / "tokens/index.json").write_text(json.dumps({"splits": splits, "vocab_size": 384, "eot": 0}))
    return root


def talker_task(data: Path, tokenizer: Tokenizer, model: TalkerConfig = TALKER) -> TalkerTask:
    """Stage D's task with random frozen parts."""
    cfg = TalkerStageConfig(
        **LOOP, align_rounds=1, align_steps=5, code_noise=0.0, state_dropout=0.0, valid_recordings=4
    )
    torch.manual_seed(0)
    parts = (Thinker(OMNI.thinker), Codec(CODEC), AudioEncoder(AUDIO), CTCHead(AUDIO))
    return TalkerTask(cfg, model, *parts, tokenizer, MEL, GRIFFIN_LIM, data / "mels", 0, CPU)


def aligned(data: Path, tokenizer: Tokenizer) -> Path:
    """Alignments of the training recordings, as stage d-talker leaves them."""
    path = data / ALIGNMENTS
    if not path.exists():
        torch.manual_seed(1)
        parts = (Codec(CODEC), AudioEncoder(AUDIO), CTCHead(AUDIO))
        recordings = load_recordings(data / "mels", "train", TALKER.voices)
        utterances, left_out = prepare_utterances(recordings, TALKER.voices, tokenizer, *parts, CPU)
        save_alignments(path, utterances, recordings)
        again, same = aligned_utterances(path, recordings, TALKER.voices, tokenizer)
        assert same == left_out == 1
        for one, other in zip(utterances, again, strict=True):
            assert (one.number, one.ids) == (other.number, other.ids)
            for name in ("characters", "tokens", "codes", "position"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name
    return path


def omni_task(data: Path, tokenizer: Tokenizer, freeze: bool) -> OmniTask:
    """Stage E's task on a random model."""
    cfg = OmniStageConfig(
        **LOOP,
        weights=dict.fromkeys(TaskWeights.model_fields, 0.0) | {"name": 0.5, "dictation": 0.5},
        freeze_vision=freeze,
        freeze_audio=freeze,
        text_every=1,
        text_batch=2,
        text_length=16,
        talker_every=1,
        talker_batch=2,
        code_noise=0.1,
        state_dropout=0.5,
        apart=0.5,
        valid_answers=2,
    )
    return remade(data, tokenizer, cfg)


def remade(data: Path, tokenizer: Tokenizer, cfg: OmniStageConfig) -> OmniTask:
    """Stage E's task on a random model, as a section says."""
    return OmniTask(
        cfg,
        small_omni(),
        aligned(data, tokenizer),
        tokenizer,
        data / "conversations",
        data / "mels",
        data / "tokens",
        0,
        CPU,
    )
