"""Pictures of seeing: what single patches are taken for, and where the Thinker looks to answer."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from muomni.checkpoint import load_checkpoint
from muomni.data.pictures import Picture, box_weights
from muomni.thinker import Thinker
from muomni.train.c_vision_encoder import ContrastiveHeads, phrase, text_states
from pipelines.components import load_component
from pipelines.course.attention import watched
from pipelines.course.canvas import BLUE, bare, canvas, plain_axes, save, show_picture
from pipelines.course.trained import Trained

# A question about the picture, and the word that answers it.
QUESTIONS = (("What do you see above the banana?", "octopus"), ("What color is the background?", "green"))
SCENES = 80  # questions about scenes that are asked again with changed pictures
ANSWER = "The octopus is above the banana."


@torch.no_grad()
def labels(run: Trained, names: Sequence[str], backgrounds: Sequence[str]) -> tuple[ContrastiveHeads, Tensor]:
    """Stage C's heads, and the vectors ``[L, E]`` of names and then backgrounds as its text tower reads them."""
    thinker = load_component(Thinker(run.model.cfg.thinker), run.checkpoints / "thinker").eval()
    folder = run.checkpoints / "vision_encoder"
    width = load_checkpoint(folder).state["heads.picture.weight"].shape[0]
    heads = ContrastiveHeads(run.model.cfg.vision_encoder.d_model, run.model.cfg.thinker.d_model, width)
    load_component(heads, folder, "heads.").eval()
    texts = [phrase(name) for name in names] + [f"{phrase(colour)} background" for colour in backgrounds]
    return heads, heads.texts(text_states(thinker, run.tokenizer, texts))


def scenes(pictures: Sequence[Picture]) -> list[Picture]:
    """The first scene of two things, and the first of more; without such, the first pictures."""
    two = [p for p in pictures if len(p.objects) == 2 and p.background]
    more = [p for p in pictures if len(p.objects) > 2 and p.background]
    return ([*two[:1], *more[:1]] or list(pictures))[:2]


@torch.no_grad()
def patches(run: Trained, out: Path) -> dict[str, Any]:
    """Two scenes, and what stage C's heads take each patch for."""
    names = sorted({o["name"] for p in run.pictures for o in p.objects})
    colours = sorted({p.background for p in run.pictures if p.background})
    heads, vectors = labels(run, names, colours)
    said = [*names, *colours]
    shown = scenes(run.pictures)
    pixels = torch.stack([p.pixels for p in shown]).float() / 255
    _, states = run.model.vision_encoder(pixels)
    scores = heads.regions(states) @ vectors.T  # [B, N, L]
    best = scores.argmax(-1)
    side, size = run.model.vision_encoder.side, shown[0].pixels.shape[-1]
    figure = canvas(4.1)
    for axes, picture, guess in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, best, strict=True):
        show_picture(axes, picture.pixels, picture.caption)
        step = size / side
        for number, label in enumerate(guess.tolist()):
            y, x = divmod(number, side)
            name = said[label]
            right = label >= len(names) or any(name == o["name"] for o in picture.objects)
            background = label >= len(names)
            text = "·" if background and name == picture.background else name.replace(" ", "\n")
            axes.text(
                (x + 0.5) * step, (y + 0.5) * step, text, ha="center", va="center", fontsize=5,
                color="black" if right else "#cc3311",
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75},
            )  # fmt: skip
        for edge in range(1, side):
            axes.axhline(edge * step, color="white", lw=0.5)
            axes.axvline(edge * step, color="white", lw=0.5)
    save(figure, out / "patches.png")
    return {"labels": len(said), **named(run, names, heads, vectors)}


def named(run: Trained, names: Sequence[str], heads: ContrastiveHeads, vectors: Tensor) -> dict[str, Any]:
    """Of the patches under held-out objects, by how much of the object they cover: the share taken for it."""
    right, count = 0.0, 0
    number = {name: n for n, name in enumerate(names)}
    some = run.pictures[:300]
    for at in range(0, len(some), 50):
        part = some[at : at + 50]
        _, states = run.model.vision_encoder(torch.stack([p.pixels for p in part]).float() / 255)
        best = (heads.regions(states) @ vectors.T).argmax(-1)
        for picture, guess in zip(part, best, strict=True):
            for one in picture.objects:
                weight = box_weights(torch.tensor([one["box"]], dtype=torch.float32), run.model.vision_encoder.side)[0]
                right += float((weight * (guess == number[one["name"]])).sum())
                count += 1
    return {"right": right / max(1, count), "objects": count, "pictures": len(some)}


@torch.no_grad()
def looking(run: Trained, out: Path) -> dict[str, Any]:
    """Where the Thinker looks in one picture while it decides the word that answers a question, layer by layer."""
    number, model = run.conversation("scene", ANSWER), run.model
    numbers: dict[str, Any] = {}
    figure = canvas(4.9)
    rows = figure.subplots(len(QUESTIONS), len(model.thinker.stack.blocks) + 1)
    for which, ((question, word), axes) in enumerate(zip(QUESTIONS, rows, strict=True)):
        asked = run.asked(number, question)
        ids = run.answer(asked.x[:, : asked.sample.prompt])
        text = run.tokenizer.decode(ids)
        before = next((n for n, one in enumerate(ids) if word in run.tokenizer.decode(ids[: n + 1])), 0)
        read = torch.cat(
            (asked.x[:, : asked.sample.prompt], model.thinker.embed(torch.tensor([ids[:before]]).long())), 1
        )
        with watched(model.thinker.stack) as found:
            model.thinker(read)
        places = (asked.sample.ids[: asked.sample.prompt] == run.tokenizer.image).nonzero()[:, 0]
        pixels = run.dialogues.pictures[asked.sample.pictures[0]]
        show_picture(axes[0], pixels, "\n".join(textwrap.wrap(question, 22)))
        axes[0].set_xlabel("\n".join(textwrap.wrap(f"“{text}”", 24)), fontsize=8, loc="left")
        for layer, (weight, panel) in enumerate(zip(found, axes[1:], strict=True)):
            over = weight[0, :, -1, places]  # [H, P]: from the position that decides the word
            numbers[f"share_{which}_{layer + 1}"] = float(over.sum(1).mean())
            show_heat(panel, pixels, over.mean(0), f"layer {layer + 1}: {float(over.sum(1).mean()):.2f}")
        numbers |= {f"answer_{which}": text, f"word_{which}": word}
    save(figure, out / "looking.png")
    return numbers


def show_heat(axes: Axes, pixels: Tensor, over: Tensor, title: str) -> None:
    """Weights of a picture's positions ``[P]``, the CLS first, over the pale picture."""
    cells = over[1:] if len(over) > 1 else over
    side = int(len(cells) ** 0.5)
    axes.imshow(pixels.permute(1, 2, 0).numpy(), alpha=0.4, extent=(0, 1, 0, 1))
    axes.imshow(cells.view(side, side).numpy(), cmap="Reds", alpha=0.65, vmin=0, extent=(0, 1, 0, 1))
    axes.set_title(title, fontsize=7, loc="left", pad=3)
    bare(axes)


@torch.no_grad()
def cells(run: Trained, out: Path) -> dict[str, Any]:
    """How many held-out questions about scenes are answered right when the states of the picture are changed."""
    asked = [n for n, one in enumerate(run.dialogues.items) if one.task == "scene"][:SCENES]
    asked = asked or [run.conversation("scene", ANSWER)]
    count = run.model.image_positions  # of one picture
    upside_down = torch.arange(1, count).flip(0).tolist()
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "as it is": lambda states: states,
        "turned": lambda states: states[[0, *upside_down]],
        "cells averaged": lambda states: torch.cat(
            (states[:1], states[1:].mean(0, keepdim=True).expand(count - 1, -1))
        ),
        "mean picture": lambda states: run.mean_picture,
    }
    numbers: dict[str, Any] = {"n": len(asked)}
    for name, change in changes.items():
        right = 0
        for number in asked:
            one = run.asked(number, change=change)
            said = run.tokenizer.decode(run.answer(one.x[:, : one.sample.prompt]))
            right += one.sample.dialogue.is_right(said)
        numbers[name.replace(" ", "_")] = right / len(asked)
    figure = canvas(1.7)
    axes = figure.subplots()
    shares = [numbers[name.replace(" ", "_")] for name in changes]
    axes.barh(list(changes), shares, color=BLUE)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    for row, share in enumerate(shares):
        axes.text(share + 0.01, row, f"{share:.2f}", va="center", fontsize=8)
    axes.set_xlabel(f"share of {len(asked)} questions answered right", fontsize=7)
    plain_axes(axes)
    save(figure, out / "cells.png")
    return numbers
