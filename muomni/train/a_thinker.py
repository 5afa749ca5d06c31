"""Stage A: the Thinker learns language, by predicting the next token of packed documents."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from muomni.data.tokens import TokenDataset
from muomni.errors import UserError
from muomni.sampling import Sampling, answer_tokens
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer
from muomni.train.loop import TrainConfig
from muomni.train.split import split_tokens

PROMPTS = ("The Congress", "A banana is", "There are two", "I recommend that")


class ThinkerStageConfig(TrainConfig):
    """Section ``a_thinker``."""

    context: int = Field(ge=8, le=8192, description="tokens of a training sequence")
    valid_batches: int = Field(ge=1, description="batches of eight sequences scored at each evaluation")


class ThinkerTask:
    """Packed text to next tokens."""

    frozen: dict[str, torch.nn.Module] = {}
    best_by = ""

    def __init__(self, cfg: ThinkerStageConfig, model: ThinkerConfig, tokens: Path, tokenizer: Path, seed: int) -> None:
        if cfg.context > model.context:
            raise UserError(f"a_thinker.context: {cfg.context} is more than thinker.context {model.context}")
        self.cfg, self.seed, self.checkpointing = cfg, seed, cfg.checkpointing
        self.tokenizer = Tokenizer(tokenizer)
        if self.tokenizer.vocab_size != model.vocab_size:
            raise UserError(
                f"thinker.vocab_size: {model.vocab_size}, but the tokenizer has {self.tokenizer.vocab_size} pieces"
            )
        self.thinker = Thinker(model)
        self.same_shapes = not model.n_experts  # how many tokens an expert gets differs
        self.modules = {"thinker": self.thinker}
        self.train, self.valid = TokenDataset(tokens, "train"), TokenDataset(tokens, "valid")

    def batch(self, step: int, micro: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and targets ``[B, T]``, the targets one token later."""
        return self.train.batch_at(self.cfg.number(step, micro), self.cfg.batch_size, self.cfg.context, self.seed)

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropy in nats a token, and the experts' balance where there are experts."""
        inputs, targets = batch
        states = self.thinker(self.thinker.embed(inputs), checkpointing=self.checkpointing)
        loss = self.thinker.loss(states, targets, select=False)
        values: dict[str, float | Tensor] = {"tokens": float(inputs.numel()), "padding": 0.0}
        balance = self.thinker.balance_loss()
        if balance is not None:
            values["balance"] = balance.detach()
            loss = loss + balance
        return loss, values

    def split(self, batch: tuple[Tensor, Tensor], parts: int) -> list[tuple[tuple[Tensor, Tensor], float]]:
        """Fewer sequences at a time. With experts their balance becomes the mean of the parts', near the whole's."""
        return split_tokens(batch, parts)

    def evaluate(self) -> dict[str, float]:
        """Loss and perplexity on held-out documents."""
        device = self.thinker.embedding.weight.device
        total, count = 0.0, 0
        for inputs, targets in islice(self.valid.eval_windows(self.cfg.context), self.cfg.valid_batches):
            states = self.thinker(self.thinker.embed(inputs.to(device)))
            scored = int((targets != -100).sum())
            total += float(self.thinker.loss(states, targets.to(device))) * scored
            count += scored
        return {"loss": total / count, "perplexity": math.exp(total / count)}

    def samples(self, step: int, folder: Path) -> None:
        """How the Thinker goes on after a few beginnings."""
        lines = []
        for prompt in PROMPTS:
            ids: list[int] = [self.tokenizer.bos, *self.tokenizer.encode(prompt)]
            x = self.thinker.embed(torch.tensor([ids], device=self.thinker.embedding.weight.device))
            rng = torch.Generator().manual_seed(0)
            sampling = Sampling(temperature=0.8, top_p=0.95)
            new: list[Any] = [
                token for token, _ in answer_tokens(self.thinker, x, {self.tokenizer.eos}, 48, sampling, rng)
            ]
            lines.append(f"{prompt}\t{' '.join(self.tokenizer.decode(ids + new).split())}\n")
        (folder / "text.tsv").write_text("beginning\ttext\n" + "".join(lines), encoding="utf-8")
