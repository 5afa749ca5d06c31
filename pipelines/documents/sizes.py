"""Tables of sizes by the profiles, ``<!-- sizes: thinker -->`` to ``<!-- /sizes -->``, so that none is wrong."""

from collections.abc import Callable
from functools import cache as remembered
from pathlib import Path

from muomni.errors import UserError
from muomni.mel import count_frames
from muomni.omni import OmniConfig
from muomni.parameter_table import count_components, read_shapes
from pipelines.tables import table

SAMPLES = 32_000  # of the recording that docs/data-flow.md follows
Row = tuple[str, Callable[[OmniConfig], str]]  # what it is, and its size in a profile

VISION: list[Row] = [
    ("input", lambda c: f"{c.vision_encoder.image_size} x {c.vision_encoder.image_size} x 3"),
    ("patches", lambda c: "{0} x {0} = {1}".format(side(c), side(c) ** 2)),
    ("width, layers, heads, feed-forward", lambda c: four(c.vision_encoder)),
    ("output", lambda c: f"CLS [{c.vision_encoder.d_model}], patches [{side(c) ** 2}, {c.vision_encoder.d_model}]"),
]
HEARING: list[Row] = [
    ("channels of the three convolutions", lambda c: str(c.audio_encoder.channels)),
    ("width, layers, heads, feed-forward", lambda c: four(c.audio_encoder)),
    ("states at most", lambda c: f"{c.audio_encoder.positions} ({c.audio_encoder.positions * 8 // 100} s)"),
]
THINKER: list[Row] = [
    ("vocabulary", lambda c: f"{c.thinker.vocab_size:,}, {'tied' if c.thinker.tie_embeddings else 'own'} head"),
    ("width, layers, heads, SwiGLU", lambda c: four(c.thinker)),
    ("key/value heads", lambda c: str(c.thinker.n_kv_heads)),
    ("context", lambda c: str(c.thinker.context)),
]
TALKER: list[Row] = [
    ("width, layers, heads, SwiGLU", lambda c: four(c.talker)),
    ("key/value heads", lambda c: str(c.talker.n_kv_heads)),
    ("frames at most", lambda c: f"{c.talker.frames} ({c.talker.frames // 50} s)"),
]
PICTURE: list[Row] = [
    (
        "into a square, white around: `media.image_to_tensor`",
        lambda c: f"[3, {c.vision_encoder.image_size}, {c.vision_encoder.image_size}]",
    ),
    ("patches, linear: `VisionEncoder`", lambda c: f"[{side(c) ** 2}, {c.vision_encoder.d_model}]"),
    ("CLS in front, positions, layers: `VisionEncoder`", lambda c: f"[1 + {side(c) ** 2}, {c.vision_encoder.d_model}]"),
    ("CLS and pooled grid: `Omni.image_features`", lambda c: f"[{picture(c)}, {c.vision_encoder.d_model}]"),
    ("projector, places: `fusion.fuse`", lambda c: f"[{picture(c)}, {c.thinker.d_model}]"),
]
RECORDING: list[Row] = [
    ("mono, 16 kHz: `sound.load_audio`", lambda c: f"[{SAMPLES}]"),
    ("log-mel, 100 frames a second: `mel.log_mel`", lambda c: f"[{count_frames(SAMPLES, c.mel)}, {c.mel.n_mels}]"),
    (
        "three convolutions: `AudioEncoder`",
        lambda c: f"[{heard(c)}, {c.audio_encoder.channels} x {-(-c.mel.n_mels // 8)}]",
    ),
    ("linear, positions, layers: `AudioEncoder`", lambda c: f"[{heard(c)}, {c.audio_encoder.d_model}]"),
    ("projector: `fusion.fuse`", lambda c: f"[{heard(c)}, {c.thinker.d_model}]"),
]
ANSWER: list[Row] = [
    ("the question: 1 + picture + recording + 2 positions", lambda c: f"[{prompt(c)}, {c.thinker.d_model}]"),
    ("keys (and values) in the cache: `KVCache`", lambda c: str(cache(c)).replace("'", "")),
    ("state of the last position", lambda c: f"[{c.thinker.d_model}]"),
    ("logits", lambda c: f"[{c.thinker.vocab_size}]"),
    ("chosen token, embedded", lambda c: f"[1, {c.thinker.d_model}]"),
]
TABLES: dict[str, tuple[list[Row], list[str]]] = {  # rows, and components whose parameters are counted
    "thinker": (THINKER, ["Thinker"]),
    "vision": (VISION, ["Vision encoder"]),
    "hearing": (HEARING, ["Audio encoder", "CTC head, training only"]),
    "talker": (TALKER, ["Talker", "Talker's conditioning"]),
    "picture": (PICTURE, []),
    "recording": (RECORDING, []),
    "answer": (ANSWER, []),
}
PROFILES = ("tiny", "base", "compact")


def four(part: object) -> str:
    """Width, layers, heads and feed-forward of a component."""
    return ", ".join(str(getattr(part, key)) for key in ("d_model", "n_layers", "n_heads", "d_ff"))


def side(c: OmniConfig) -> int:
    """Patches on a side."""
    return c.vision_encoder.image_size // c.vision_encoder.patch_size


def picture(c: OmniConfig) -> int:
    """Positions of a picture."""
    return 1 + c.fusion.image_grid**2


def heard(c: OmniConfig) -> int:
    """Positions of the recording."""
    return -(-count_frames(SAMPLES, c.mel) // 8)


def prompt(c: OmniConfig) -> int:
    """Positions of the question."""
    return 1 + picture(c) + heard(c) + 2


def cache(c: OmniConfig) -> list[int | str]:
    """Shape of the cache's keys: layers, batch, key/value heads, positions, head width."""
    return [c.thinker.n_layers, 1, c.thinker.n_kv_heads, "positions", c.thinker.d_model // c.thinker.n_heads]


@remembered
def counted(profile: Path) -> dict[str, int]:
    """Parameters of every component of a profile, those that only training uses too."""
    components, others = count_components(*read_shapes(str(profile)))
    return components | others | {"total": sum(components.values())}


def filled(root: Path, what: str) -> str:
    """One of `TABLES`.

    Raises:
        UserError: if there is none of this name, or a profile is missing.
    """
    if what not in TABLES:
        raise UserError(f"no table of sizes {what!r}; there are: {', '.join(TABLES)}")
    rows, parts = TABLES[what]
    profiles = [root / "profiles" / f"{name}.yaml" for name in PROFILES]
    shapes = [read_shapes(str(path))[0] for path in profiles]
    body = [[label, *(size(shape) for shape in shapes)] for label, size in rows]
    body += [[f"parameters: {part}", *(f"{counted(path)[part]:,}" for path in profiles)] for part in parts]
    return table(["", *PROFILES], body, right=5)
