"""What a training stage is: its settings, and what it gives to the loop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from muomni.config import Section
from muomni.train.parallel import world


class TrainConfig(Section):
    """What every training stage can set. Stages subclass it."""

    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(ge=1, description="samples in a micro-batch")
    accumulate: int = Field(ge=1, description="micro-batches a step")
    lr: float = Field(gt=0, le=1, description="full learning rate of AdamW")
    muon_lr: float = Field(ge=0, le=1, description="full rate of Muon for the blocks' matrices; 0: AdamW for all")
    weight_decay: float = Field(ge=0, le=1, description="decoupled weight decay of matrices")
    warmup: int = Field(ge=0, description="steps of linear warm-up")
    min_lr: float = Field(ge=0, le=1, description="share of the learning rate left at the end of the cosine")
    clip: float = Field(gt=0, description="largest global norm of the gradient")
    eval_every: int = Field(ge=1, description="steps between evaluations; there is always one at the end")
    save_every: int = Field(ge=1, description="steps between saved states")
    checkpointing: bool = Field(description="recompute activations in the backward pass to save memory")
    max_bad_steps: int = Field(ge=0, description="NaN or infinite steps in a row that are skipped, not fatal")

    def number(self, step: int, micro: int) -> int:
        """The number of a micro-batch counted over all steps and processes, for data in a fixed order."""
        return step * self.accumulate * world()[1] + micro


class Task(Protocol):
    """What a stage adds to the loop.

    Attributes:
        modules: what is trained, by name. Parameters in them with ``requires_grad`` False stay as they are.
        frozen: what is only used: the loop puts it in eval mode, without gradients, and checks that it never
            changes.
        best_by: an evaluated metric, lower is better, whose best weights are kept; empty keeps the last ones.
    """

    # Read-only here, so that a task may declare more exact types.
    @property
    def modules(self) -> Mapping[str, nn.Module]: ...
    @property
    def frozen(self) -> Mapping[str, nn.Module]: ...
    @property
    def best_by(self) -> str: ...

    def batch(self, step: int, micro: int, rng: torch.Generator) -> Any:
        """Make a micro-batch: nested dicts, lists, tuples of CPU tensors, which the loop moves to the device.

        A pure function of its arguments: all randomness comes from `rng`, which is fresh for each seed, step
        and micro-step. Runs in a second thread while the step before computes. None means: there is no data.
        """
        ...

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss of one micro-batch and further values to log, such as ``padding``, the share of padding.

        Gradients of micro-batches are averaged, so accumulation equals a large batch where each micro-batch's
        loss is a mean over equally many items; with unequal lengths a task may divide its sum by a constant
        instead. Runs under autocast, in train mode. What it returns to log has no graph.
        """
        ...

    def evaluate(self) -> dict[str, float]:
        """Metrics on the validation split. Runs in eval mode, without gradients, always from one seed."""
        ...

    def samples(self, step: int, folder: Path) -> None:
        """Write text, pictures or audio that show how far the model is. Runs like `evaluate`."""
        ...


@runtime_checkable
class Splittable(Protocol):
    """A task whose loss can be computed from parts of a micro-batch, so that each part needs less memory."""

    def split(self, batch: Any, parts: int) -> list[tuple[Any, float]]:
        """Cut a micro-batch into so many parts, or one a sample if it has fewer samples.

        Args:
            batch: as `Task.batch` made it, on the CPU.
            parts: how many, 1 or more.

        Returns:
            Parts that `Task.loss` takes, each with its weight: the sum of the parts' losses by weight is the loss of
            the whole, and so are their gradients, up to rounding. Different kinds of samples may be parts of their
            own, which makes more parts.
        """
        ...


@runtime_checkable
class Recordable(Protocol):
    """A task whose `Task.loss` does the same operations at every step, so that a GPU can be given them as one.

    Its batches are tuples of tensors, it never waits for a GPU's result, and it draws no random numbers.

    Attributes:
        same_shapes: whether that is so: every batch has the same shapes.
    """

    same_shapes: bool


@runtime_checkable
class Recomputing(Protocol):
    """A task that can do with less memory and the same result by computing activations twice.

    Attributes:
        checkpointing: whether `Task.loss` has its model do so; at first as its config says.
    """

    checkpointing: bool
