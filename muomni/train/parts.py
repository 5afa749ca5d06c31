"""Micro-batches forward and backward: whole at first, in parts once memory has run out.

The gradient of a part counts by its share of the loss, so the sum over the parts is the gradient of the whole, up to
rounding. The global batch, the order of the data and the steps stay as they are.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from muomni.device import Device
from muomni.errors import UserError
from muomni.train.feed import micro_seed, to_device
from muomni.train.memory import is_out_of_memory
from muomni.train.parallel import world
from muomni.train.recorded import RecordedGradient
from muomni.train.task import Recomputing, Recordable, Splittable, Task, TrainConfig

Values = dict[str, float | Tensor]
EAGER_STEPS = 2  # of a training, before its step is recorded as a CUDA graph


class Parts:
    """Computes the micro-batches of a training.

    Args:
        name: of the stage.
        task: the stage.
        cfg: its settings.
        seed: of everything random.
        device: where it computes.
        facts: the training's saved values. ``parts``, into how many a micro-batch is cut, and ``checkpointing``,
            whether that was turned on for want of memory, are kept there, so that a resumed training begins with them.
        parameters: those that learn.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        cfg: TrainConfig,
        seed: int,
        device: Device,
        facts: dict[str, Any],
        parameters: Sequence[nn.Parameter],
    ) -> None:
        self.name, self.task, self.cfg, self.seed, self.device, self.facts = name, task, cfg, seed, device, facts
        self.parameters, self.calls = parameters, 0
        self.recorded: RecordedGradient | None = None
        # A replay sets the gradient and does not add to it, and checkpointing's second pass looks at random states.
        self.recording = (
            device.device.type == "cuda"
            and isinstance(task, Recordable)
            and task.same_shapes
            and (cfg.accumulate, world()[1], cfg.checkpointing) == (1, 1, False)
        )
        if facts["checkpointing"] and isinstance(task, Recomputing):
            task.checkpointing = True

    def cut(self, batch: Any, parts: int) -> list[tuple[Any, float]]:
        """A micro-batch in so many parts, each with its weight in the loss, or whole if the task cannot cut it."""
        if parts == 1 or not isinstance(self.task, Splittable):
            return [(batch, 1.0)]
        return self.task.split(batch, parts)

    def backward(self, step: int, micro: int, batch: Any) -> tuple[Tensor, Values]:
        """Add a micro-batch's share to the gradient. Returns its loss and further values to log."""
        if self.recording and self.facts["parts"] == 1 and not self.facts["checkpointing"]:
            found_whole = self.replay(step, batch)
            if found_whole is not None:
                return found_whole
        torch.manual_seed(micro_seed(self.seed, step, micro))  # dropout and the like
        found = []
        for part, weight in self.cut(batch, self.facts["parts"]):
            with self.device.autocast():
                loss, values = self.task.loss(to_device(part, self.device.device), step)
            (loss * weight / self.cfg.accumulate).backward()
            found.append((loss.detach().float(), values, weight))
        if len(found) == 1:
            return found[0][:2]
        return torch.stack([loss * weight for loss, _, weight in found]).sum(), mean_values(found)

    def replay(self, step: int, batch: Any) -> tuple[Tensor, Values] | None:
        """Loss and gradient by a CUDA graph, from the third step on; None if there is none."""
        self.calls += 1
        if self.calls <= EAGER_STEPS:
            return None
        if self.recorded is None:

            def run(batch: Any) -> tuple[Tensor, Values]:
                with self.device.autocast():
                    loss, values = self.task.loss(batch, step)
                loss.backward()
                return loss.detach().float(), values

            try:
                self.recorded = RecordedGradient(run, self.parameters, to_device(batch, self.device.device))
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                warnings.warn(f"{self.name}: without a CUDA graph, which is slower: {error}", stacklevel=2)
                self.recording = False
                for p in self.parameters:
                    p.grad = None
                return None
        return self.recorded(batch)

    def shrink(self, step: int, batch: Any) -> str:
        """Find a way to need less memory than the last attempt at a micro-batch. Returns what it is.

        Raises:
            UserError: if there is none left.
        """
        parts, size, self.recorded = self.facts["parts"], self.cfg.batch_size, None
        if len(self.cut(batch, 2 * parts)) > len(self.cut(batch, parts)):
            self.facts["parts"] = 2 * parts
            parts = min(size, 2 * parts)
            most = -(-size // parts)
            if most * parts == size:
                return f"micro-batches of {most} from here on (batch {size} = {parts} x {most})"
            return f"micro-batches of at most {most} from here on (batch {size} in {parts} parts)"
        if isinstance(self.task, Recomputing) and not self.task.checkpointing:
            self.task.checkpointing = self.facts["checkpointing"] = True
            return "activations are computed again in the backward pass from here on (checkpointing: true)"
        can, recomputed = isinstance(self.task, Splittable), isinstance(self.task, Recomputing)
        tried = ["one sample at a time"] * can + ["checkpointing"] * recomputed
        section = self.name.replace("-", "_")
        if can:
            todo = f"shorten the samples (such as context or text_length in {section}) or take a smaller model"
        else:
            todo = f"lower {section}.batch_size, since the loss needs the whole batch at once"
        raise UserError(
            f"{self.name}: step {step + 1}: out of memory{' even with ' * bool(tried)}{' and '.join(tried)}; {todo}; "
            "or give it more memory (device.memory_gb is a cap, if set)"
        )


def mean_values(found: list[tuple[Tensor, Values, float]]) -> Values:
    """Means of the parts' values by the parts' weights; a value is not in every part."""
    means: Values = {}
    for name in {name: None for _, values, _ in found for name in values}:
        having = [(values[name], weight) for _, values, weight in found if name in values]
        total = sum(weight for _, weight in having)
        # A part in which nothing counts weighs nothing.
        means[name] = sum(value * weight for value, weight in having) / total if total else having[0][0]
    return means
