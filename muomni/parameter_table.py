"""How many parameters each component has, counted from the real modules, beside the specified sizes."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from muomni.audio_encoder import CTCHead
from muomni.config import load_params, parse
from muomni.errors import UserError
from muomni.omni import Omni, OmniConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.train.c_vision_encoder import ContrastiveHeads, VisionStageConfig

SPECIFIED = {  # millions, profile base
    "Thinker": 20.32,
    "Vision encoder": 0.914,
    "Audio encoder": 2.05,
    "Talker": 2.24,
    "RVQ codec": 0.049,
    "Projectors": 0.082,
}
SPECIFIED_TOTAL = 25.65
STAGE_C = "c_vision_encoder"
VOCABULARIES = {"base": (32000, False), "compact": (5000, True)}


def count(modules: Iterable[nn.Module]) -> int:
    """Parameters of modules, a shared one once."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def count_components(cfg: OmniConfig, stage_c: VisionStageConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Count parameters without allocating them.

    Args:
        cfg: shapes of the model.
        stage_c: says how wide the contrastive heads are.

    Returns:
        The components of `SPECIFIED` with their parameters, and what is not part of the specified sizes: the heads
        that only training uses, what conditions the Talker, and what tells where in a picture a state lies.
    """
    with torch.device("meta"):
        model, ctc = Omni(cfg), CTCHead(cfg.audio_encoder)
        contrastive = ContrastiveHeads(cfg.vision_encoder.d_model, cfg.thinker.d_model, stage_c.embedding)
    condition = count([model.talker.condition])
    components = {
        "Thinker": count([model.thinker]),
        "Vision encoder": count([model.vision_encoder]),
        "Audio encoder": count([model.audio_encoder]),
        "Talker": count([model.talker]) - condition,
        "RVQ codec": count([model.codec]),
        "Projectors": count([model.vision_projector, model.audio_projector]),
    }
    others = {
        "places in a picture": count([model.places]),
        "Talker's conditioning": condition,
        "CTC head, training only": count([ctc]),
        "contrastive, training only": count([contrastive]),
    }
    if vocoder := count([model.vocoder]):
        others["vocoder"] = vocoder
    return components, others


def read_shapes(path: str | Path) -> tuple[OmniConfig, VisionStageConfig]:
    """The sections of a parameter file that shape the model and its training-only heads.

    Raises:
        UserError: if one is missing or bad.
    """
    params = load_params(path)
    missing = [name for name in (*OmniConfig.model_fields, STAGE_C) if name not in params]
    if missing:
        raise UserError(f"{path}: section '{missing[0]}' is missing")
    shapes = parse(OmniConfig, {name: params[name] for name in OmniConfig.model_fields}, str(path))
    return shapes, parse(VisionStageConfig, params[STAGE_C], f"{path}: {STAGE_C}")


def with_vocabulary(cfg: ThinkerConfig, size: int, tied: bool) -> int:
    """Parameters of a Thinker of the same shape with another vocabulary."""
    with torch.device("meta"):
        return count([Thinker(cfg.model_copy(update={"vocab_size": size, "tie_embeddings": tied}))])


def render(cfg: OmniConfig, stage_c: VisionStageConfig, title: str) -> str:
    """The table as text."""
    components, others = count_components(cfg, stage_c)
    rows = [(name, n, SPECIFIED[name]) for name, n in components.items()]
    rows.append(("total", sum(components.values()), SPECIFIED_TOTAL))
    lines = [f"{title:<28}{'parameters':>12}{'M':>10}{'specified':>12}{'difference':>12}"]
    for name, n, wanted in rows:
        lines.append(f"{name:<28}{n:>12,}{n / 1e6:>10.3f}{wanted:>10g} M{(n / 1e6 / wanted - 1) * 100:>+10.1f} %")
    lines.append("not counted above:")
    lines += [f"{name:<28}{n:>12,}{n / 1e6:>10.3f}" for name, n in others.items()]
    lines.append("")
    tied = "tied to the embedding" if cfg.thinker.tie_embeddings else "with its own head"
    lines.append(f"vocabulary {cfg.thinker.vocab_size:,}, {tied}. A Thinker of this shape with the vocabulary of")
    for name, (size, shared) in VOCABULARIES.items():
        n = with_vocabulary(cfg.thinker, size, shared)
        how = "tied" if shared else "own head"
        lines.append(f"  {name:<8} ({size:>6,}, {how:<8}) has {n / 1e6:.2f} M parameters")
    lines.append("The specification's text says 5K, its table 20.32 M: only 32,000 with an own head comes to that.")
    return "\n".join(lines)
