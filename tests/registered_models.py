"""What the tests of the registry share: checkpoints and metrics as the stages write them, registered."""

import base64
import io
import json
from pathlib import Path

import torch
from PIL import Image
from small_models import small_omni
from torch import nn

from muomni.audio_encoder import CTCHead
from muomni.base64_media import wav_text
from muomni.checkpoint import make_card, save_checkpoint
from muomni.passport.card import read_passport
from muomni.registry_config import RegistryConfig
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import ContrastiveHeads
from pipelines.card import write_card
from pipelines.register import register
from pipelines.run import new_dir

CFG = RegistryConfig(
    name="muomni", promote_by="accuracy", higher_is_better=True, min_gain=0.01, guards={}, components=True
)


def train(folder: Path, tokenizer: Tokenizer, seed: int) -> None:
    """Write checkpoints as all stages do; every seed gives other weights."""
    model = small_omni(seed)
    vocabulary = folder / "tokenizer.model"
    tokenizer.save(vocabulary)
    config = model.cfg.model_dump(mode="json")
    heads = ContrastiveHeads(model.cfg.vision_encoder.d_model, model.cfg.thinker.d_model, 16)
    made = {
        "omni": model,
        "thinker": model.thinker,
        "audio_encoder": nn.ModuleDict({"audio_encoder": model.audio_encoder, "ctc": CTCHead(model.cfg.audio_encoder)}),
        "vision_encoder": nn.ModuleDict({"vision_encoder": model.vision_encoder, "heads": heads}),
        "codec": model.codec,
        "talker": model.talker,
    }
    for name, part in made.items():
        card = make_card(
            name, part, data={"data/tokens": "abc"}, params={"seed": 0}, metrics={}, seconds=1.0, run="key"
        )
        files = {"tokenizer.model": vocabulary} if name == "omni" else {}
        save_checkpoint(folder / "checkpoints" / name, part.state_dict(), config, card, files)


def measure(folder: Path, accuracy: float, held_out: str) -> None:
    """Write metrics as stage evaluate does, and the card."""
    (folder / "metrics").mkdir(exist_ok=True)
    interval = [accuracy - 0.02, accuracy + 0.02]
    summary = {
        "accuracy": {"value": accuracy, "n": 100, "interval": interval},
        "dictation_cer": {"value": 0.1, "n": 20},
        "codec_mel_error": {"value": 0.4, "n": 30},
    }
    (folder / "metrics/summary.json").write_text(json.dumps(summary))
    (folder / "metrics/samples").mkdir(exist_ok=True)
    (folder / "metrics/samples/speech.html").write_text(f"a page of {held_out}")
    (folder / "metrics/held_out.json").write_text(json.dumps({"sha256": held_out}))
    describe(folder)


def describe(folder: Path) -> None:
    """Write the model's card as stage card does."""
    with new_dir(folder / "card") as made:
        write_card(read_passport(folder / "checkpoints/omni", folder / "metrics", folder / "plots"), made)


def registered(folder: Path, cfg: RegistryConfig = CFG) -> dict:
    """Register what lies in the folder."""
    return register(cfg, folder / "checkpoints", folder / "metrics", folder / "card")


def picture() -> str:
    """A green picture in base64."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (0, 200, 0)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


SOUND = wav_text(0.1 * torch.sin(torch.arange(8000) * 0.15), 16000)
