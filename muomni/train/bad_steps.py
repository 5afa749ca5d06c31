"""Steps that went wrong: what they changed is put back, and what is not finite is neither saved nor trusted."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from muomni.errors import UserError
from muomni.fitting import first_few, not_finite
from muomni.train.state import flatten_optimisers, module_tensors


class Undo:
    """Copies of what a forward pass may change: buffers, and parameters that learn by moving averages.

    A skipped step leaves the optimisers' weights alone, but its forward pass has run: one NaN in a codebook's moving
    average would stay there for good, and every step after it would be skipped too.

    All of it is copied at each step; it is small. PyTorch counts the changes of a tensor, but not those that batch
    normalisation, a CUDA graph or another process makes.

    Args:
        modules: those being trained.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self.kept: list[Tensor] = []
        self.keep()

    def tensors(self) -> list[Tensor]:
        """What may change, in an order that stays; tensors that were put in the place of others, too."""
        return [
            tensor.detach()
            for module in self.modules.values()
            for tensor in (*module.parameters(), *module.buffers())
            if not tensor.requires_grad
        ]

    def keep(self) -> None:
        """Copy all of it."""
        found = self.tensors()
        if [(t.shape, t.dtype) for t in self.kept] != [(t.shape, t.dtype) for t in found]:
            self.kept = [torch.empty_like(tensor) for tensor in found]
        if found:
            torch._foreach_copy_(self.kept, found)

    def put_back(self) -> None:
        """Give all of it the values of the last copy."""
        if self.kept:
            torch._foreach_copy_(self.tensors(), self.kept)


def check_finite(
    what: str, modules: Mapping[str, nn.Module], optimisers: Sequence[torch.optim.Optimizer], good: str
) -> None:
    """Make sure that nothing is evaluated or saved that a step with a finite loss and gradient has spoilt.

    Args:
        what: the stage and the step.
        modules: those being trained.
        optimisers: theirs.
        good: where the last good state is.

    Raises:
        UserError: if a weight, a buffer or an optimiser's average is NaN or infinite.
    """
    bad = not_finite(module_tensors(modules) | flatten_optimisers(list(optimisers)))
    if bad:
        raise UserError(
            f"{what}: NaN or infinity in {first_few(bad, 1)}, though loss and gradient were finite; {good}; "
            "lower lr or muon_lr"
        )


def check_learned(name: str, steps: int, skipped: int) -> None:
    """Make sure that a training which has ended has learned.

    Raises:
        UserError: if all of its steps were skipped.
    """
    if skipped >= steps:
        raise UserError(f"{name}: loss or gradient was NaN or infinite at all {steps} steps; check the data")


def check_evaluated(name: str, best_by: str, best: float | None) -> None:
    """Make sure that the best weights were chosen, where they should be.

    Raises:
        UserError: if no evaluation was finite.
    """
    if best_by and best is None:
        raise UserError(f"{name}: {best_by} was NaN or infinite at each evaluation; check the validation data")
