"""Weights of a checkpoint into modules: of the same names, shapes and types, and every number finite."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from muomni.config import short
from muomni.errors import UserError

M = TypeVar("M", bound=nn.Module)


def assemble(build: Callable[[], M], state: Mapping[str, Tensor], prefix: str = "", where: str = "checkpoint") -> M:
    """Build a module and put tensors into it; nothing of its size is allocated before they are known to fit.

    Args:
        build: makes the module.
        state: as for `load_into`, which says what is raised.
        prefix: as for `load_into`, which says what is raised.
        where: as for `load_into`, which says what is raised.
    """
    check_fit(outline(build, state, where), state, prefix, where)
    module = build()
    load_into(module, state, prefix, where)
    return module


class Undrawn(TorchFunctionMode):
    """Leaves weights as they are where they would be drawn: on the meta device that takes longer than all the rest."""

    DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`."""
        given = kwargs or {}
        if func in self.DRAWS:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


def outline(build: Callable[[], M], state: Mapping[str, Tensor], where: str) -> M:
    """Build a module on the meta device, where tensors have shapes and take no memory.

    Args:
        build: makes the module.
        state: what it is to be filled from.
        where: what messages call the checkpoint.

    Raises:
        UserError: as soon as it has far more parameters than there are tensors: to build a hundred thousand takes long.
    """
    most, count = 2 * len(state) + 100, 0

    def registered(owner: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise UserError(
                f"{where}: weights do not fit the configuration: it builds more than {most} parameters, there are "
                f"{len(state)} tensors; train it again"
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        with torch.device("meta"), Undrawn():
            return build()
    finally:
        hook.remove()


def load_into(module: nn.Module, state: Mapping[str, Tensor], prefix: str = "", where: str = "checkpoint") -> None:
    """Copy tensors into a module, which must fit them exactly.

    Args:
        module: built from the checkpoint's configuration.
        state: as `Checkpoint.state`.
        prefix: take only names that start with it, and cut it off.
        where: what messages call the checkpoint, for example its folder.

    Raises:
        UserError: as `check_fit`, or if a tensor holds NaN or infinity.
    """
    check_fit(module, state, prefix, where)
    given = {name: state[prefix + name] for name in module.state_dict()}
    if bad := not_finite(given):
        raise UserError(f"{where}: NaN or infinity in {first_few(bad)}; train it again")
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(given[name])


def check_fit(module: nn.Module, state: Mapping[str, Tensor], prefix: str = "", where: str = "checkpoint") -> None:
    """Compare tensors with those of a module; either may be on the meta device.

    Args:
        module: as for `load_into`.
        state: as for `load_into`.
        prefix: as for `load_into`.
        where: as for `load_into`.

    Raises:
        UserError: naming tensors that are missing, that nothing expects, or that have another shape or type.
    """
    found = [f"{kind}: {first_few(names)}" for kind, names in misfits(module, state, prefix).items() if names]
    if found:
        what = f"{where}: {prefix}" if prefix else where
        raise UserError(f"{what}: weights do not fit the configuration: {'; '.join(found)}; train it again")


def misfits(module: nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> dict[str, list[str]]:
    """What `check_fit` complains of, by kind."""
    given = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    both = {name: (given[name], wanted[name]) for name in wanted if name in given}
    return {
        "missing tensors": [name for name in wanted if name not in given],
        "unexpected tensors": [name for name in given if name not in wanted],
        "other shapes": [
            f"{name} {short(list(mine.shape))} instead of {list(its.shape)}"
            for name, (mine, its) in both.items()
            if mine.shape != its.shape
        ],
        "other types": [
            f"{name} {mine.dtype} instead of {its.dtype}".replace("torch.", "")
            for name, (mine, its) in both.items()
            if mine.dtype != its.dtype
        ],
    }


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    # A sum is finite only if every term is, and takes no memory; it may overflow, so what is not is looked at again.
    return [name for name, x in state.items() if not x.sum().isfinite() and not x.isfinite().all()]


def first_few(names: list[str], most: int = 4) -> str:
    """The first names of a list and how many more there are."""
    return ", ".join(name[:160] for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
