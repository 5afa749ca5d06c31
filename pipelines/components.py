"""Reading the checkpoints of earlier stages."""

from pathlib import Path
from typing import TypeVar

from torch import nn

from muomni.checkpoint import load_checkpoint
from muomni.fitting import load_into

M = TypeVar("M", bound=nn.Module)


def load_component(module: M, folder: Path, prefix: str = "") -> M:
    """Put a checkpoint's weights, or those under a prefix, into a module built from today's parameters.

    Raises:
        UserError: if the checkpoint is missing, or made with other parameters.
    """
    load_into(module, load_checkpoint(folder).state, prefix, where=str(folder))
    return module
