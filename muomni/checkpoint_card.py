"""What a checkpoint says of itself: ``card.json``, written when its training ends and not changed afterwards.

Figures of an evaluation come later; they stand beside it (`muomni.passport`).
"""

import math
import subprocess
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator
from torch import nn

from muomni.config import Section

CONFIG, CARD = "config.json", "card.json"
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Licence(Section):
    """What came from a package or an address, as a corpus's manifest has it."""

    package: str
    version: str
    licence: str
    what: str


class Source(Section):
    """A corpus that went in, as its manifest has it."""

    corpus: str
    source: str
    sha256: str
    bad: int = Field(ge=0, description="items set aside")
    counts: dict[str, Any]
    licences: list[Licence]


class Made(Section):
    """How a part was made that a training began with, from its own card."""

    weights_sha256: str
    revision: str
    seconds: float
    run: str
    steps: float = 0
    skipped_steps: float = 0
    machine: dict[str, str] = Field(default={})


class Card(Section):
    """What ``card.json`` holds: see `make_card` and `save_checkpoint`."""

    component: str
    parameters: int = Field(ge=0)
    data: dict[str, str]
    revision: str
    params: dict[str, Any]
    metrics: dict[str, float]
    seconds: float = Field(ge=0)
    run: str
    parts: dict[str, int] = Field(default={}, description="parameters of each part")
    sources: list[Source] = Field(default=[], description="corpora, with licences and hashes")
    lineage: dict[str, Made] = Field(default={}, description="how the parts were made that it began with")
    machine: dict[str, str] = Field(default={}, description="where it was trained")
    versions: dict[str, str] = Field(default={}, description="of Python and packages")
    weights_sha256: Digest = Field(description="of model.safetensors")
    files_sha256: dict[str, Digest] = Field(description="of every other file but the card")

    @model_validator(mode="after")
    def check(self) -> "Card":
        """The configuration is among the files."""
        if CONFIG not in self.files_sha256:
            raise ValueError(f"files_sha256 has no {CONFIG}")
        return self


def make_card(
    component: str,
    module: nn.Module,
    *,
    data: Mapping[str, str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    seconds: float,
    run: str = "",
    made: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Facts about a trained component, for ``card.json``.

    Args:
        component: for example ``thinker``.
        module: what was trained; its parameters are counted, a shared one once.
        data: hash of each data set and checkpoint that went in.
        params: the stage's parameters.
        metrics: as measured at the end of the training; what is not finite is left out.
        seconds: time the training took.
        run: key of the tracked run that made it.
        made: further fields of `Card`: ``sources``, ``lineage``, ``machine``, ``versions`` (`muomni.passport.facts`).
    """
    return {
        "component": component,
        "parameters": sum(p.numel() for p in module.parameters()),
        "data": dict(data),
        "revision": revision(),
        "params": dict(params),
        "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
        "seconds": round(seconds, 1),
        "run": run,
        "parts": parts(module),
        **(made or {}),
    }


def parts(module: nn.Module) -> dict[str, int]:
    """Parameters of each child of a module that has any; a shared one counts where it comes first."""
    seen: set[int] = set()
    found = {}
    for name, child in module.named_children():
        own = {id(p): p.numel() for p in child.parameters() if id(p) not in seen}
        seen |= own.keys()
        if own:
            found[name] = sum(own.values())
    return found


def revision() -> str:
    """The git commit of the working tree, with ``-dirty`` if it has changes; ``unknown`` outside git.

    ``params.yaml`` and ``dvc.lock`` do not count: what they say is on record beside it.
    """
    changed = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/"]
    changed += [f":(exclude,top){name}" for name in ("params.yaml", "dvc.lock")]
    found = []
    for command in (["git", "rev-parse", "HEAD"], changed):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        if done.returncode:
            return "unknown"
        found.append(done.stdout.strip())
    return f"{found[0]}-dirty" if found[1] else found[0]
