"""The smallest models that still have every part, for tests only: their weights are random."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from muomni.audio_encoder import AudioEncoderConfig
from muomni.codec import CodecConfig
from muomni.griffin_lim import GriffinLimConfig
from muomni.layers import Block, Stack, SwiGLU
from muomni.mel import MelConfig
from muomni.omni import FusionConfig, Omni, OmniConfig
from muomni.talker import TalkerConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer, train_tokenizer
from muomni.vision_encoder import VisionEncoderConfig
from muomni.vocoder import VocoderConfig

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A red apple lies on the table, and two green pears lie beside it.",
    "How many dogs do you see in the picture? There are three dogs.",
    "Write down what you hear. Read this aloud: good morning.",
    "What is it? It is a bicycle. Where is the cat? It is left of the chair.",
]

THINKER = ThinkerConfig(
    vocab_size=384,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    d_ff=48,
    context=160,
    rope_theta=10000.0,
    tie_embeddings=False,
    n_experts=0,
    experts_per_token=1,
    balance_weight=0.01,
)
VISION = VisionEncoderConfig(image_size=32, patch_size=8, d_model=24, n_layers=2, n_heads=2, d_ff=48)
AUDIO = AudioEncoderConfig(n_mels=128, channels=6, d_model=24, n_layers=2, n_heads=2, d_ff=48, positions=64, slots=4)
CODEC = CodecConfig(n_mels=128, code_width=16, codebooks=2, codes=32, decay=0.9, kernel=3)
TALKER = TalkerConfig(
    codebooks=2,
    codes=32,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=1,
    d_ff=48,
    frames=200,
    character_width=16,
    character_layers=2,
    character_kernel=5,
    temperature=0.5,
    voices=["hibari", "espeak:en+m3"],
)
MEL = MelConfig(
    sample_rate=16000,
    n_fft=1024,
    win_length=800,
    hop_length=160,
    n_mels=128,
    f_min=20.0,
    f_max=8000.0,
    floor=0.01,
)
GRIFFIN_LIM = GriffinLimConfig(iterations=4, momentum=0.99, inversion_steps=2, seed=0)
VOCODER = VocoderConfig(kind="griffin_lim", width=24, layers=2, d_ff=48, kernel=5, ahead=1)
OMNI = OmniConfig(
    mel=MEL,
    thinker=THINKER,
    vision_encoder=VISION,
    audio_encoder=AUDIO,
    codec=CODEC,
    talker=TALKER,
    vocoder=VOCODER,
    griffin_lim=GRIFFIN_LIM,
    fusion=FusionConfig(image_grid=2),
)


def small_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer of `THINKER.vocab_size` pieces."""
    return train_tokenizer(SENTENCES * 4, THINKER.vocab_size, folder / "tokenizer.model")


M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def enlarge(model: M, factor: float = 5) -> M:
    """Make the blocks' matrices larger than training starts with, so that attention is sharp and no fault hides."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "blocks." in name:
            parameter.mul_(factor)
    return model


def small_thinker(**changes: object) -> Thinker:
    """Random weights; embeddings and head enlarged, too."""
    torch.manual_seed(0)
    model = enlarge(Thinker(THINKER.model_copy(update=changes)).eval())
    with torch.no_grad():
        model.embedding.weight.mul_(10)
        model.head.weight.mul_(1 if model.head.weight is model.embedding.weight else 10)
    return model


def token_ids(*shape: int, seed: int = 0) -> Tensor:
    """Random tokens for `small_thinker`."""
    return torch.randint(THINKER.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def small_omni(seed: int = 0) -> Omni:
    """Random weights."""
    torch.manual_seed(seed)
    model = enlarge(Omni(OMNI).eval())
    with torch.no_grad():
        for part in (model.thinker.embedding, model.thinker.head, model.talker.condition.embedding):
            part.weight.mul_(10)
        for part in (*model.talker.code_heads, *model.talker.code_embedding):
            part.weight.mul_(10)
        # About three frames a character, so that generated speech is short.
        model.talker.advance.bias.fill_(-1.5)
    return model


VOCABULARY = 23


class Tiny(nn.Module):
    """A language model of one block with dropout, so that random states of a training matter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.stack = Stack([Block(16, 2, 1, SwiGLU(16, 32), causal=True)], 16, positions=8)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(16, VOCABULARY)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.dropout(self.stack(self.embedding(ids))))
