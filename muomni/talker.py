"""The Talker: a causal transformer over codec frames that says a given text.

Speech follows the text because every frame is told which character it is on. Beside the previous frame's codes, a frame
takes the state of its character, a small convolution over the characters with the Thinker's state of the token that
spells it, and how long it has been on it. From that come the frame's base code, its residual code given the base code,
and whether the next frame goes on to the next character. Going on from the last character ends the speech.
"""

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from muomni.audio_encoder import CHARACTERS, normalise_with_offsets
from muomni.config import Section, near
from muomni.errors import UserError
from muomni.layers import Block, KVCache, Stack, SwiGLU, initialise
from muomni.walk import LONGEST_STAY, Speaker, TalkerDecoder, Walk, speak_uncached

SPACE = CHARACTERS.index(" ")
PADDING = len(CHARACTERS)


class TalkerConfig(Section):
    """Shape of the Talker and of what conditions it."""

    codebooks: int = Field(ge=1, le=16, description="codes of a frame; as in the codec")
    codes: int = Field(ge=2, le=4096, description="codes of each codebook; as in the codec")
    d_model: int = Field(ge=8, le=2048, description="width of the states")
    n_layers: int = Field(ge=1, le=32, description="transformer layers")
    n_heads: int = Field(ge=1, le=32, description="attention heads")
    n_kv_heads: int = Field(ge=1, le=32, description="key/value heads")
    d_ff: int = Field(ge=8, le=8192, description="width of the SwiGLU feed-forward")
    frames: int = Field(ge=16, le=65536, description="frames of one utterance at most, 50 a second")
    character_width: int = Field(ge=4, le=1024, description="width of the characters' convolution")
    character_layers: int = Field(ge=1, le=8, description="convolutions over the characters")
    character_kernel: int = Field(ge=1, le=15, description="characters that one convolution sees")
    temperature: float = Field(ge=0, le=5, description="of the codes when it speaks; 0 takes the likeliest")
    voices: list[str] = Field(min_length=1, description="speakers whose voices it learns; the first is the default")
    voice_codes: list[list[int]] = Field(
        default_factory=list, description="the first code of each voice and the one after its last; empty: all have all"
    )

    @model_validator(mode="after")
    def check(self) -> "TalkerConfig":
        """Heads divide the width, key/value heads divide the heads, a convolution has a middle."""
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} is not a multiple of 2 x n_heads {self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.character_kernel % 2 == 0:
            raise ValueError(f"character_kernel {self.character_kernel} is even; a convolution needs a middle")
        if len(set(self.voices)) < len(self.voices) or not all(self.voices):
            raise ValueError(f"voices {self.voices} must be different names")
        if self.voice_codes and len(self.voice_codes) != len(self.voices):
            raise ValueError(f"voice_codes has {len(self.voice_codes)} entries for {len(self.voices)} voices")
        if not all(len(own) == 2 and 0 <= own[0] < own[1] <= self.codes for own in self.voice_codes):
            raise ValueError(f"voice_codes {self.voice_codes} are not within the {self.codes} codes")
        return self

    def codes_of(self, voice: int) -> tuple[int, int]:
        """The first code that a voice speaks with, of every codebook, and the one after its last."""
        first, last = self.voice_codes[voice] if self.voice_codes else (0, self.codes)
        return first, last

    def voice(self, name: str) -> int:
        """The index of a voice; that of the default for an empty name.

        Raises:
            UserError: if there is no such voice.
        """
        if name and name not in self.voices:
            raise UserError(f"voice '{name}': not learned{near(name, self.voices)}; there are {', '.join(self.voices)}")
        return self.voices.index(name) if name else 0


def spell(text: str, spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """The characters that are spoken for a text, and the token that spells each.

    Args:
        text: as the tokenizer decoded it.
        spans: for each token the start and end of its characters in the text.

    Returns:
        Indices into `CHARACTERS`, with a space before and after, and as many indices of tokens.
    """
    heard, offsets = normalise_with_offsets(text)
    token_at = [0] * (len(text) + 1)
    for token, (start, end) in enumerate(spans):
        token_at[start:end] = [token] * (end - start)
    tokens = [token_at[offset] for offset in offsets]
    last = max(0, len(spans) - 1)
    return [SPACE, *(CHARACTERS.index(c) for c in heard), SPACE], [tokens[0] if tokens else 0, *tokens, last]


class CharacterStates(nn.Module):
    """What conditions the Talker: one state a character from its neighbours, the Thinker and the voice.

    Attributes:
        reach: how many characters on either side a state depends on.
    """

    def __init__(self, cfg: TalkerConfig, thinker_width: int) -> None:
        super().__init__()
        width = cfg.character_width
        self.reach = cfg.character_layers * (cfg.character_kernel // 2)
        self.embedding = nn.Embedding(len(CHARACTERS) + 1, width, padding_idx=PADDING)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, cfg.character_kernel, padding=cfg.character_kernel // 2)
            for _ in range(cfg.character_layers)
        )
        self.project = nn.Linear(width, cfg.d_model)
        self.thinker = nn.Linear(thinker_width, cfg.d_model)
        self.stay = nn.Embedding(LONGEST_STAY, cfg.d_model)
        nn.init.normal_(self.stay.weight, std=0.02)
        self.voice = nn.Embedding(len(cfg.voices), cfg.d_model)
        nn.init.normal_(self.voice.weight, std=0.02)

    def forward(self, characters: Tensor, thinker_states: Tensor, voice: Tensor) -> Tensor:
        """States of characters.

        Args:
            characters: ``[B, N]`` int64.
            thinker_states: the Thinker's, of the token that spells each, ``[B, N, Dt]``.
            voice: ``[B]`` int64, index into the configured voices.

        Returns:
            ``[B, N, D]``.
        """
        real = (characters != PADDING)[..., None]
        x = self.embedding(characters)
        for convolution in self.convolutions:
            x = x + F.gelu(convolution((x * real).transpose(1, 2)).transpose(1, 2))
        return (self.project(x) + self.thinker(thinker_states) + self.voice(voice)[:, None]) * real


class Talker(nn.Module):
    """Codes in, the next frame's codes and the way through the text out."""

    def __init__(self, cfg: TalkerConfig, thinker_width: int) -> None:
        super().__init__()
        self.cfg = cfg
        # One more entry a codebook stands for "no frame yet".
        self.code_embedding = nn.ModuleList(nn.Embedding(cfg.codes + 1, cfg.d_model) for _ in range(cfg.codebooks))
        blocks = [
            Block(cfg.d_model, cfg.n_heads, cfg.n_kv_heads, SwiGLU(cfg.d_model, cfg.d_ff), causal=True)
            for _ in range(cfg.n_layers)
        ]
        self.stack = Stack(blocks, cfg.d_model, cfg.frames)
        self.code_heads = nn.ModuleList(nn.Linear(cfg.d_model, cfg.codes) for _ in range(cfg.codebooks))
        self.advance = nn.Linear(cfg.d_model, 1)
        initialise(self, cfg.n_layers)
        self.condition = CharacterStates(cfg, thinker_width)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Codes ``[..., Q]`` to the sum of their embeddings ``[..., D]``."""
        return torch.stack([table(codes[..., q]) for q, table in enumerate(self.code_embedding)]).sum(0)

    def forward(
        self,
        previous: Tensor,  # [B, T, Q] int64, the codes one frame earlier; `codes` before the first
        character_states: Tensor,  # [B, N, D]
        position: Tensor,  # [B, T] int64, the character that each frame is on
        stay: Tensor,  # [B, T] int64, frames since that character began
        cache: KVCache | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """States of frames, ``[B, T, D]``; with `checkpointing` the backward pass makes each layer's again."""
        index = position[..., None].expand(-1, -1, character_states.shape[-1])
        x = self.embed_codes(previous) + character_states.gather(1, index)
        x = x + self.condition.stay(stay.clamp_max(LONGEST_STAY - 1))
        return self.stack(x, cache=cache, checkpointing=checkpointing)

    def code_logits(self, states: Tensor, codes: Tensor) -> list[Tensor]:
        """Logits of each codebook given the codes of the ones before it in the same frame.

        Args:
            states: ``[..., D]``.
            codes: ``[..., Q]`` int64, the frame's own codes; those of codebook q are not used for codebooks up to q.

        Returns:
            Q tensors ``[..., codes]``.
        """
        logits = []
        for q, head in enumerate(self.code_heads):
            logits.append(head(states))
            states = states + self.code_embedding[q](codes[..., q])
        return logits

    @torch.no_grad()
    def generate(
        self,
        characters: Tensor,  # [N] int64
        thinker_states: Tensor,  # [N, Dt]
        rng: torch.Generator,
        temperature: float | None = None,
        use_cache: bool = True,
        voice: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Speak: sample frame after frame until the last character is left behind.

        Args:
            characters: as `spell` gives them.
            thinker_states: of the token that spells each.
            rng: source of the samples, on the CPU.
            temperature: of the codes, by default the configured one; 0 takes the likeliest.
            use_cache: False recomputes all frames at each step, to check the cache against.
            voice: index into the configured voices.

        Returns:
            Codes ``[T, Q]`` int64 and the character of each frame ``[T]`` int64.
        """
        speaker = torch.tensor([voice], device=characters.device)
        states = self.condition(characters[None], thinker_states[None], speaker)
        walk = Walk(self, rng, temperature, min(self.cfg.frames, LONGEST_STAY * len(characters)), voice)
        if use_cache:
            for _ in Speaker(TalkerDecoder(self), walk).to(states, len(characters)):
                pass
        else:
            speak_uncached(self, walk, states)
        device = characters.device
        return torch.tensor(walk.codes, device=device), torch.tensor(walk.positions, device=device)
