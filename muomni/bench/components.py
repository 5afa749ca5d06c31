"""Steps of single components at given shapes, ours and another checkout's alike, for `muomni bench`.

The shapes are those that a comparison is easy with: the same batch for both, made once, no data pipeline.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muomni.audio_encoder import AudioEncoder, CTCHead
from muomni.codec import Codec
from muomni.device import Device
from muomni.params import Params
from muomni.talker import Talker
from muomni.thinker import Thinker
from muomni.train.optim import make_optimisers
from muomni.vision_encoder import VisionEncoder

AUDIO, SPOKEN = (8, 400), (8, 100)  # recordings, and frames of log-mel or of codes
PICTURES = 8
TEXT = (8, 256)  # sequences, tokens
LETTERS = 40  # characters of a recording


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        run: does it once.
        amount: how much of `unit` that is.
        unit: tokens, frames, pictures.
        operations: floating-point operations in matrix products of one run, without those done twice to save memory.
    """

    run: Callable[[], object]
    amount: float
    unit: str
    operations: float = 0.0


def train_step(
    modules: Mapping[str, nn.Module], loss: Callable[[], Tensor], lr: float, muon_lr: float, device: Device
) -> Callable[[], object]:
    """A whole training step as the loop does it: loss, gradients, clipping, optimisers.

    Args:
        modules: whose parameters are trained, by name.
        loss: computes it, under the device's autocast.
        lr: learning rate of AdamW.
        muon_lr: of Muon.
        device: where.

    Returns:
        A function that does one step.
    """
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimisers = make_optimisers(modules, lr, muon_lr, 0.01)

    def run() -> None:
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        with device.autocast():
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()

    return run


def thinker_step(p: Params, vocabulary: int, device: Device, batch: int = TEXT[0], length: int = TEXT[1]) -> Case:
    """Next-token training of the Thinker.

    Args:
        p: of the profile.
        vocabulary: tokens V, in the place of the profile's.
        device: where.
        batch: sequences B.
        length: tokens T of each; the context grows to it if need be.
    """
    cfg = p.thinker.model_copy(update={"vocab_size": vocabulary, "context": max(p.thinker.context, length)})
    thinker = Thinker(cfg).to(device.device)
    ids = torch.randint(vocabulary, (batch, length), device=device.device)
    targets = ids.roll(-1, 1)

    def loss() -> Tensor:
        return thinker.loss(thinker(thinker.embed(ids), checkpointing=p.a_thinker.checkpointing), targets)

    run = train_step({"thinker": thinker}, loss, p.a_thinker.lr, p.a_thinker.muon_lr, device)
    # Three products for every weight and token, and attention over half of the square; the embedding has none.
    weights = sum(w.numel() for name, w in thinker.named_parameters() if w.ndim == 2 and "embedding" not in name)
    weights += cfg.vocab_size * cfg.d_model * cfg.tie_embeddings
    attention = cfg.n_layers * cfg.d_model * length
    return Case(run, batch * length, "tokens", 6 * batch * length * (weights + attention))


def audio_step(p: Params, device: Device) -> Case:
    """CTC training of the audio encoder."""
    encoder, head = AudioEncoder(p.audio_encoder).to(device.device), CTCHead(p.audio_encoder).to(device.device)
    batch, frames = AUDIO
    mels = torch.randn(batch, frames, p.audio_encoder.n_mels, device=device.device)
    lengths = torch.full((batch,), frames, device=device.device)
    letters = torch.randint(1, 27, (batch * LETTERS,), device=device.device)

    def loss() -> Tensor:
        states, sizes = encoder(mels, lengths)
        scores = head(states).transpose(0, 1)
        return F.ctc_loss(scores, letters, sizes * head.slots, torch.full((batch,), LETTERS), reduction="sum") / len(
            letters
        )

    modules = {"audio_encoder": encoder, "ctc": head}
    run = train_step(modules, loss, p.b_audio_encoder.lr, p.b_audio_encoder.muon_lr, device)
    return Case(run, batch * frames, "frames")


def vision_step(p: Params, device: Device) -> Case:
    """Training of the vision encoder, towards given vectors."""
    encoder = VisionEncoder(p.vision_encoder).to(device.device)
    size = p.vision_encoder.image_size
    pictures = torch.rand(PICTURES, 3, size, size, device=device.device)
    wanted = torch.randn(PICTURES, p.vision_encoder.d_model, device=device.device)

    def loss() -> Tensor:
        return F.mse_loss(encoder(pictures)[0].float(), wanted)

    run = train_step({"vision": encoder}, loss, p.c_vision_encoder.lr, p.c_vision_encoder.muon_lr, device)
    return Case(run, PICTURES, "pictures")


def talker_step(p: Params, device: Device) -> Case:
    """Training of the Talker on codes, conditioning included."""
    cfg = p.talker
    talker = Talker(cfg, p.thinker.d_model).to(device.device)
    batch, frames = SPOKEN
    codes = torch.randint(cfg.codes, (batch, frames, cfg.codebooks), device=device.device)
    characters = torch.randint(1, 27, (batch, LETTERS), device=device.device)
    states = torch.randn(batch, LETTERS, p.thinker.d_model, device=device.device)
    position = (torch.arange(frames, device=device.device) * LETTERS // frames).expand(batch, -1)
    stay = torch.zeros_like(position)
    voice = torch.zeros(batch, dtype=torch.int64, device=device.device)

    def loss() -> Tensor:
        h = talker(codes, talker.condition(characters, states, voice), position, stay).flatten(0, 1)
        wanted = codes.flatten(0, 1)
        losses = [F.cross_entropy(x.float(), wanted[:, q]) for q, x in enumerate(talker.code_logits(h, wanted))]
        going = talker.advance(h)[:, 0].float()
        return torch.stack(losses).sum() + F.binary_cross_entropy_with_logits(going, torch.ones_like(going))

    run = train_step({"talker": talker}, loss, p.d_talker.lr, p.d_talker.muon_lr, device)
    return Case(run, batch * frames, "frames")


def codec_encode(p: Params, device: Device) -> Case:
    """Frames to codes."""
    codec = Codec(p.codec).to(device.device).eval()
    batch, frames = AUDIO
    mels = torch.randn(batch * frames, p.codec.n_mels, device=device.device)

    def run() -> None:
        with torch.inference_mode():
            codec.encode(mels)

    return Case(run, batch * frames, "frames")


def component_cases(p: Params, device: Device) -> dict[str, Case]:
    """All steps at the shapes of this module, without generation."""
    return {
        "Thinker step, vocabulary 5,000": thinker_step(p, 5000, device),
        "Thinker step, vocabulary 32,000": thinker_step(p, 32000, device),
        "audio encoder step": audio_step(p, device),
        "vision encoder step": vision_step(p, device),
        "Talker step": talker_step(p, device),
        "codec, frames to codes": codec_encode(p, device),
    }
