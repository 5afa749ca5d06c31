"""How a model learned, to see and to hear: the same sentence, picture and recording at each evaluation, with curves.

One file of HTML that asks no host, made from what the trainings logged (`muomni.passport.trainings`).
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Canvas

from muomni.evaluate.plots import BLUE, CHECKED, ORANGE, plot_points
from muomni.passport.blocks import Block, Drawings, Part, Text, escaped, image, listed, page, player
from muomni.passport.limits import named
from muomni.passport.trainings import Sample, Training

MOST_STEPS = 6  # evaluations side by side
MOST_SAMPLES = 12  # rows of a stage
MOST_CURVES = 3  # measures of the validation beside the loss: four pictures fit side by side
TELLING = ("valid_accuracy_scene", "valid_cer_dictation")  # of stage E, which has one a task
STAGES = {
    "a-thinker": "It learns to go on with a text. Each line is how it goes on after the same beginning.",
    "b-audio-encoder": "It learns to hear. Each line is what it writes down of the same recording.",
    "c-vision-encoder": "It learns to see. Each line is what it calls the objects of the same picture.",
    "d-codec": "It learns to keep speech as codes. Each sound is the same recording after codec and vocoder, or "
    "after the vocoder alone.",
    "d-talker": "It learns to speak. Each sound is the same sentence, which it never heard.",
    "d-vocoder": "It learns to make sound of frames. Each sound is the same recording.",
    "e-omni": "All parts learn to work together. Each line is its answer to the same question.",
}


@dataclass(frozen=True)
class Steps:
    """Samples side by side: a row for each, a column for each evaluation."""

    steps: Sequence[int]
    samples: Sequence[Sample]

    def markdown(self) -> str:
        """Nothing: the page is HTML alone."""
        return ""

    def html(self) -> str:
        """A table that scrolls sideways by itself where it is too wide."""
        head = "".join(f"<th>step {step:,}</th>" for step in self.steps)
        rows = "\n".join(self.row(sample) for sample in self.samples)
        return (
            f'<div class="wide"><table class="steps"><thead><tr><th>sample</th>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def row(self, sample: Sample) -> str:
        """A sample at each evaluation; a text that is as it was the time before is pale."""
        name = "; ".join(sample.about.values())
        cells, before = [f"<td>{image(sample.picture, name)}{listed(sample.about)}</td>"], ""
        for step in self.steps:
            text, sound = sample.texts.get(step, ""), sample.sounds.get(step)
            shown = f"<small>{escaped(text)}</small>" if text and text == before else escaped(text)
            heard = player(sound.read_bytes(), f"{name}, step {step}") if sound else ""
            cells.append(f"<td>{heard}{shown}</td>")
            before = text
        return f"<tr>{''.join(cells)}</tr>"


def spread(steps: Sequence[int], most: int = MOST_STEPS) -> list[int]:
    """Some of many steps: the first, the last, and others evenly between."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]


def measures(training: Training) -> list[str]:
    """What of the validation is drawn: its headline first, then accuracies and error rates."""
    keys = list(training.valid[-1]) if training.valid else []
    first = next((key for key in CHECKED if key in keys), "")
    told = [key for key in keys if key.startswith(("valid_accuracy", "valid_cer", "valid_naming"))]
    wanted = dict.fromkeys((first, *(key for key in TELLING if key in keys), *told))
    return [key for key in wanted if key][:MOST_CURVES]


def curves(training: Training) -> dict[str, bytes]:
    """The loss and some measures of the validation over the steps, each as PNG; equal figures give equal files."""
    drawn = {"loss": curve(training.train, "loss", BLUE, "")}
    return drawn | {named(key): curve(training.valid, key, ORANGE, "o") for key in measures(training)}


def curve(rows: Sequence[Mapping[str, Any]], key: str, colour: str, marker: str) -> bytes:
    """A measure over the steps, which begin at zero, as PNG."""
    canvas = Canvas(figsize=(3.0, 2.2), layout="constrained")
    axes = canvas.subplots()
    plot_points(axes, rows, key, colour, marker)
    axes.set_title(named(key), fontsize=9, loc="left")
    axes.set_xlim(left=0)
    axes.set_xlabel("step", fontsize=7)
    axes.grid(alpha=0.3)
    out = io.BytesIO()
    canvas.savefig(out, format="png", dpi=90, metadata={"Software": None})
    return out.getvalue()


def stage_part(training: Training) -> Part:
    """A stage: what it learns, its curves, its samples side by side."""
    blocks: list[Block] = []
    if training.name in STAGES:
        blocks.append(Text(STAGES[training.name]))
    if training.train:
        blocks.append(Drawings(curves(training)))
    if training.steps:
        steps, samples = spread(training.steps), training.samples[:MOST_SAMPLES]
        blocks.append(Steps(steps, samples))
        hidden = {"evaluations": len(training.steps) - len(steps), "samples": len(training.samples) - len(samples)}
        told = [f"{count} {what}" for what, count in hidden.items() if count]
        if told:
            blocks.append(Text(f"Not shown: {' and '.join(told)}."))
    return Part(training.name, blocks)


def learning_page(trainings: Sequence[Training], title: str = "How it learned", about: str = "") -> str:
    """The page.

    Args:
        trainings: of a run, in the order in which they are shown.
        title: its heading.
        about: a sentence more below it.
    """
    first = (
        "The same sentence, picture and recording at each evaluation of its trainings, side by side, on data that "
        "nothing was learned from. What is as it was at the evaluation before is pale."
    )
    return page(title, f"{first} {about}".strip(), [stage_part(one) for one in trainings])
