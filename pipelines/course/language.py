"""Pictures of the Thinker at work on text, and of the sequence that a question becomes."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.patches import Patch

from pipelines.course.canvas import BLUE, GREEN, GREY, ORANGE, bare, canvas, save
from pipelines.course.trained import Trained

SENTENCE = "A dog is bigger than a mouse."
TOP = 5  # next tokens shown at each position
SPOKEN = "The red circle is to the left of the laptop."  # answer of the conversation that chapter 01 follows


@torch.no_grad()
def next_tokens(run: Trained, out: Path) -> dict[str, Any]:
    """What the Thinker expects after each token of a sentence: the likeliest tokens, and what came."""
    thinker, tokenizer = run.model.thinker, run.tokenizer
    ids = [tokenizer.bos, *tokenizer.encode(SENTENCE)]
    probability = thinker.logits(thinker(thinker.embed(torch.tensor([ids]))))[0].softmax(-1)
    values, best = probability[:-1].topk(TOP)
    came = torch.tensor(ids[1:])
    chance = probability[:-1].gather(1, came[:, None])[:, 0]
    figure = canvas(2.9)
    axes = figure.subplots()
    axes.imshow(values.T.numpy(), aspect="auto", cmap="Blues", vmin=0, vmax=2.2)  # never so dark that text is lost
    for column, (row, likely) in enumerate(zip(values.tolist(), best.tolist(), strict=True)):
        for place, (value, token) in enumerate(zip(row, likely, strict=True)):
            hit = token == int(came[column])
            label = f"{shown(run, token)}\n{value:.2f}"
            weight = "bold" if hit else "normal"
            axes.text(column, place, label, ha="center", va="center", fontsize=7, weight=weight)
    heads = [
        f"after {shown(run, one)}\ncame {shown(run, following)}\nwith {p:.3f}"
        for one, following, p in zip(ids[:-1], ids[1:], chance.tolist(), strict=True)
    ]
    axes.set_xticks(range(len(heads)), heads, fontsize=7)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    save(figure, out / "next-tokens.png")
    nats = float(-chance.log().mean())
    return {
        "tokens": len(came),
        "nats": nats,
        "perplexity": float(torch.tensor(nats).exp()),
        "least": float(chance.min()),
        "most": float(chance.max()),
    }


def shown(run: Trained, token: int) -> str:
    """A token as text: a control token by its name, a space as an open box."""
    if token == run.tokenizer.eos:
        return "eot"
    spelled = run.tokenizer.spelled(token)
    text = spelled.decode("utf-8", "replace") if isinstance(spelled, bytes) else spelled
    return "".join(c if c.isprintable() else "·" for c in text.replace(" ", "␣").replace("$", r"\$")) or "·"


def sequence(run: Trained, out: Path) -> dict[str, Any]:
    """The positions of a spoken question about a picture, and of its answer, by what stands there."""
    asked = run.asked(run.conversation("spoken_scene", SPOKEN))
    ids, tokenizer = asked.sample.ids.tolist(), run.tokenizer
    kinds = {"control token": GREY, "picture": ORANGE, "recording": GREEN, "answer": BLUE}
    row = [
        kinds["picture"]
        if token == tokenizer.image
        else kinds["recording"]
        if token == tokenizer.audio
        else kinds["control token"]
        if token in tokenizer.controls
        else kinds["answer"]
        for token in ids
    ]
    figure = canvas(1.9)
    axes, beside = figure.subplots(1, 2, width_ratios=[6, 1])
    per_row = -(-len(ids) // 2)
    for position, (token, colour) in enumerate(zip(ids, row, strict=True)):
        x, y = position % per_row, 1 - position // per_row
        axes.barh(y, 1, 0.8, x, color=colour, edgecolor="white")
        if colour == BLUE:
            axes.text(x + 0.5, y, shown(run, token), rotation=90, ha="center", va="center", fontsize=6, color="white")
    axes.set_xlim(0, per_row)
    axes.set_ylim(-0.6, 1.6)
    bare(axes)
    axes.spines[:].set_visible(False)
    axes.legend(
        handles=[Patch(color=c, label=k) for k, c in kinds.items()],
        fontsize=7,
        ncols=4,
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.97),
    )
    if asked.pixels is not None:
        beside.imshow(asked.pixels.permute(1, 2, 0).numpy())
    bare(beside)
    save(figure, out / "sequence.png")
    return {
        "positions": len(ids),
        "picture": ids.count(tokenizer.image),
        "recording": ids.count(tokenizer.audio),
        "prompt": asked.sample.prompt,
        "seconds": sum(len(mel) for mel in asked.mels) / 100,
        "frames": sum(len(mel) for mel in asked.mels),
        "wanted": asked.sample.dialogue.answer,
        "answered": run.tokenizer.decode(run.answer(asked.x[:, : asked.sample.prompt])),
    }
