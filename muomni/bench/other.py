"""The same shapes through another checkout's modules: the original micro-Omni's layout, package ``omni``.

Its modules are imported and used as they are, in the precision, with the optimiser and the loss that its training
scripts use.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muomni.bench.components import AUDIO, LETTERS, PICTURES, SPOKEN, TEXT, Case
from muomni.device import Device
from muomni.errors import UserError
from muomni.params import Params

PACKAGE = "omni"


class Other:
    """Another checkout.

    Args:
        path: its root, which holds the package ``omni``.

    Raises:
        UserError: if there is no such package, or it needs a library that is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / PACKAGE).is_dir():
            raise UserError(f"{path}: no package '{PACKAGE}' in this folder; give the root of a checkout of micro-Omni")
        sys.path.insert(0, str(path))
        try:
            names = ("thinker", "audio_encoder", "vision_encoder", "talker", "codec")
            self.modules = {name: importlib.import_module(f"{PACKAGE}.{name}") for name in names}
        except ImportError as error:
            raise UserError(f"{path}: cannot be imported ({error}); `pip install {error.name}` for it") from None
        finally:
            sys.path.remove(str(path))

    def thinker(self, p: Params, vocabulary: int, context: int) -> nn.Module:
        """Its language model in the shape of ours."""
        t = p.thinker
        made: nn.Module = self.modules["thinker"].ThinkerLM(
            vocabulary, t.n_layers, t.d_model, t.n_heads, t.d_ff, ctx=context, use_gqa=True
        )
        return made

    def thinker_step(
        self, p: Params, vocabulary: int, device: Device, batch: int = TEXT[0], length: int = TEXT[1]
    ) -> Case:
        """Next-token training; see `muomni.bench.components.thinker_step`, whose arguments it takes."""
        model = self.thinker(p, vocabulary, length).to(device.device)
        ids = torch.randint(1, vocabulary, (batch, length), device=device.device)
        targets = ids.roll(-1, 1)

        def loss() -> Tensor:
            logits = model(ids)
            return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=0)

        return Case(train_step(model, loss, device), batch * length, "tokens")

    def audio_step(self, p: Params, device: Device) -> Case:
        """CTC training."""
        a = p.audio_encoder
        encoder = self.modules["audio_encoder"].AudioEncoderTiny(
            a.d_model, a.n_heads, a.d_ff, a.n_layers, downsample_factor=8
        )
        batch, frames = AUDIO
        both = nn.ModuleList([encoder, nn.Linear(a.d_model, 64)]).to(device.device)
        mels = torch.randn(batch, frames, a.n_mels, device=device.device)
        letters = torch.randint(1, 27, (batch, LETTERS), device=device.device)

        def loss() -> Tensor:
            scores = both[1](both[0](mels)).log_softmax(-1).transpose(0, 1)
            sizes = torch.full((batch,), len(scores)), torch.full((batch,), LETTERS)
            return F.ctc_loss(scores, letters, *sizes, zero_infinity=True)

        return Case(train_step(both, loss, device), batch * frames, "frames")

    def vision_step(self, p: Params, device: Device) -> Case:
        """Training towards given vectors."""
        v = p.vision_encoder
        encoder = self.modules["vision_encoder"].ViTTiny(
            v.image_size, v.patch_size, v.d_model, v.n_layers, v.n_heads, v.d_ff
        )
        encoder.to(device.device)
        pictures = torch.rand(PICTURES, 3, v.image_size, v.image_size, device=device.device)
        wanted = torch.randn(PICTURES, v.d_model, device=device.device)
        step = train_step(encoder, lambda: F.mse_loss(encoder(pictures)[0][:, 0], wanted), device)
        return Case(step, PICTURES, "pictures")

    def talker_step(self, p: Params, device: Device) -> Case:
        """Training on codes."""
        t = p.talker
        talker = (
            self.modules["talker"]
            .TalkerTiny(t.d_model, t.n_layers, t.n_heads, t.d_ff, t.codebooks, t.codes, use_gqa=True)
            .to(device.device)
        )
        batch, frames = SPOKEN
        codes = torch.randint(t.codes, (batch, frames, 2), device=device.device)

        def loss() -> Tensor:
            base, residual = talker(codes)
            parts = [F.cross_entropy(x.flatten(0, 1), codes[..., q].flatten()) for q, x in enumerate((base, residual))]
            return parts[0] + parts[1]

        return Case(train_step(talker, loss, device), batch * frames, "frames")

    def codec_encode(self, p: Params, device: Device) -> Case:
        """Frames to codes."""
        codec = self.modules["codec"].RVQ(p.codec.codebooks, p.codec.codes, p.codec.code_width).to(device.device).eval()
        batch, frames = AUDIO
        mels = torch.randn(batch, frames, p.codec.n_mels, device=device.device)

        def run() -> None:
            with torch.inference_mode():
                codec.encode(mels)

        return Case(run, batch * frames, "frames")

    def generation(self, p: Params, vocabulary: int, batch: int, tokens: int, device: Device) -> Case:
        """Greedy decoding with its cache, in fp32.

        Args:
            p: of the profile, for the shape.
            vocabulary: tokens V.
            batch: replies B written together.
            tokens: of each reply.
            device: where.
        """
        model: Any = self.thinker(p, vocabulary, tokens + 8).to(device.device).eval()
        model.enable_kv_cache(True)

        def run() -> None:
            model.reset_kv_cache()
            ids = torch.ones(batch, 1, dtype=torch.long, device=device.device)
            with torch.inference_mode():
                for _ in range(tokens):
                    ids = model(ids)[:, -1].argmax(-1, keepdim=True)

        return Case(run, batch * tokens, "tokens")

    def cases(self, p: Params, device: Device) -> Mapping[str, Case]:
        """The steps of `muomni.bench.components.component_cases`."""
        return {
            "Thinker step, vocabulary 5,000": self.thinker_step(p, 5000, device),
            "Thinker step, vocabulary 32,000": self.thinker_step(p, 32000, device),
            "audio encoder step": self.audio_step(p, device),
            "vision encoder step": self.vision_step(p, device),
            "Talker step": self.talker_step(p, device),
            "codec, frames to codes": self.codec_encode(p, device),
        }


def train_step(model: nn.Module, loss: Callable[[], Tensor], device: Device) -> Callable[[], object]:
    """A training step as its scripts do it: mixed precision on a GPU only, AdamW for all."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    mixed = device.device.type == "cuda"

    def run() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.device.type, torch.float16, enabled=mixed):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return run
