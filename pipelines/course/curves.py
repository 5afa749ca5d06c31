"""Loss curves of the stages, from what their trainings told."""

from pathlib import Path
from typing import Any

from pipelines.course.canvas import BLUE, GREEN, ORANGE, RED, canvas, plain_axes, save
from pipelines.course.trained import Trained

# What each stage shows: curves of its steps on the left, of its evaluations on the right.
SHOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a-thinker": (("loss",), ("valid_loss",)),
    "b-audio-encoder": (("loss",), ("valid_cer", "valid_cer_hibari")),
    "c-vision-encoder": (
        ("picture_loss", "object_loss", "patch_loss", "background_loss"),
        ("valid_naming", "valid_objects", "valid_recall_1"),
    ),
    "d-codec": (("mel_error", "loss"), ("valid_mel_error",)),
    "d-talker": (
        ("code_loss_0", "code_loss_1", "advance_loss"),
        ("valid_code_loss_0", "valid_code_loss_1", "valid_advance_loss"),
    ),
    "e-omni": (
        ("answer_loss", "text_loss", "talker_code_loss_0"),
        ("valid_loss_scene", "valid_loss_dictation", "valid_loss_world"),
    ),
}
COLOURS = (BLUE, ORANGE, GREEN, RED)


def curves(run: Trained, out: Path, stage: str) -> dict[str, Any]:
    """One stage's curves; the numbers are those of its first and last line."""
    train, valid = run.curves(stage)
    figure = canvas(2.3)
    numbers: dict[str, Any] = {"steps": train[-1]["step"]}
    for axes, rows, names, title in zip(
        figure.subplots(1, 2), (train, valid), SHOWN[stage], ("training", "held out"), strict=True
    ):
        for name, colour in zip([n for n in names if n in rows[0]], COLOURS, strict=False):
            steps, values = [row["step"] for row in rows], [row[name] for row in rows]
            axes.plot(
                steps,
                values,
                color=colour,
                lw=1,
                marker="o" if len(rows) < 12 else "",
                ms=4,
                label=name.removeprefix("valid_").replace("_", " "),
            )
            numbers |= {f"first_{name}": values[0], f"last_{name}": values[-1]}
        every = "a point every ten steps" if rows is train else f"{len(rows)} evaluations"
        axes.set_title(f"{title}, {every}", fontsize=8, loc="left")
        axes.set_xlabel("step", fontsize=7)
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.legend(fontsize=6, frameon=False)
        plain_axes(axes)
    save(figure, out / f"curves-{stage}.png")
    return numbers
