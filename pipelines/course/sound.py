"""Pictures of hearing and coding: characters in slots, alignments, codebooks, what the codec and the phases lose."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from safetensors import safe_open
from torch import Tensor

from muomni.alignment import align
from muomni.audio_encoder import BLANK, CHARACTERS
from muomni.griffin_lim import GriffinLim
from muomni.mel import log_mel
from muomni.train.speaking import ALIGNMENTS, spelled
from pipelines.course.canvas import BLUE, FEW, ORANGE, RED, canvas, plain_axes, save, show_mel
from pipelines.course.trained import Trained

SENTENCE = "What is to the left of the cat?"
CODE_RATE = 50  # frames a second of the codec
ITERATIONS = (1, 2, 4, 8, 16, 32, 64)


def mark(axes: Axes, text: str, starts: Sequence[float], height: float, colour: str = "white") -> None:
    """A line where each character begins, and the character above it.

    Args:
        axes: with a spectrogram, see `show_mel`.
        text: the characters.
        starts: seconds at which each begins.
        height: where the characters stand, in the axes' own units.
        colour: of the lines.
    """
    for character, start in zip(text, starts, strict=True):
        axes.axvline(start, color=colour, lw=0.5, alpha=0.7)
        axes.text(start, height, character, fontsize=7, color="black", va="bottom")


def starts_of(position: Tensor) -> list[float]:
    """Seconds at which each character begins, from the character of each frame ``[T]``."""
    new = torch.ones(len(position), dtype=torch.bool)
    new[1:] = position[1:] != position[:-1]
    return [frame / CODE_RATE for frame in new.nonzero()[:, 0].tolist()]


@torch.no_grad()
def slots(run: Trained, out: Path) -> dict[str, Any]:
    """A recording, the likeliest characters of the CTC head's slots, and where forced alignment puts each."""
    recording = run.recording(SENTENCE)
    states, lengths = run.hear([recording.mel])
    chances = run.ctc(states)[0].exp()  # [S, C + 1]
    heard = run.ctc.transcribe(states, lengths)[0]
    _, characters, _ = spelled(recording.text, run.tokenizer)
    position = align(chances.log(), characters.tolist(), len(recording.mel) // 2)
    figure = canvas(6.2)
    above, below = figure.subplots(2, 1, height_ratios=[1, 2.2])
    show_mel(above, recording.mel, "log-mel; lines: where each character begins by forced alignment\n")
    if position is not None:
        text = "".join(CHARACTERS[c] for c in characters.tolist())
        mark(above, text, starts_of(position), recording.mel.shape[1])
    seconds = len(recording.mel) / 100
    below.imshow(
        chances.T.numpy(),
        aspect="auto",
        cmap="Blues",
        origin="lower",
        extent=(0, seconds, 0, len(CHARACTERS) + 1),
        vmax=1,
    )
    below.set_yticks(
        [n + 0.5 for n in range(len(CHARACTERS) + 1)], [*CHARACTERS.replace(" ", "␣"), "blank"], fontsize=6
    )
    for edge in range(0, chances.shape[0], run.ctc.slots):
        below.axvline(edge * seconds / chances.shape[0], color="black", lw=0.2, alpha=0.4)
    below.set_title(f"CTC head, {run.ctc.slots} slots a state (thin lines): “{heard}”", fontsize=8, loc="left", pad=3)
    below.set_xlabel("seconds", fontsize=7)
    below.tick_params(axis="x", labelsize=7)
    save(figure, out / "slots.png", FEW)
    blank = float((chances.argmax(-1) == BLANK).float().mean())
    return {
        "frames": len(recording.mel),
        "states": states.shape[1],
        "slots": chances.shape[0],
        "characters": len(characters) - 2,
        "blank": blank,
        "heard": heard,
        "said": recording.text,
    }


@torch.no_grad()
def alignment(run: Trained, out: Path) -> dict[str, Any]:
    """A training recording's alignment by the CTC head, and after the rounds of `muomni.realignment`."""
    with safe_open(run.checkpoints / "talker" / ALIGNMENTS, "pt") as file:
        kept = {name: file.get_tensor(name).long() for name in file.keys() if name.endswith("/position")}  # noqa: SIM118
    moved, frames, shown = 0, 0, False
    shifts: list[Tensor] = []
    figure = canvas(3.2)
    axes = figure.subplots()
    recordings = list(islice(run.stream("train"), 100))
    for number, recording in enumerate(recordings):
        fine = kept.get(f"{number}/position")
        if fine is None:
            continue
        states, _ = run.hear([recording.mel])
        _, characters, _ = spelled(recording.text, run.tokenizer)
        rough = align(run.ctc(states)[0], characters.tolist(), len(fine))
        if rough is None or len(characters) != int(fine.max()) + 1:
            continue
        moved, frames = moved + int((rough != fine).sum()), frames + len(fine)
        begins = [torch.tensor(starts_of(way)) for way in (rough, fine)]
        shifts.append((begins[0] - begins[1]).abs())
        if not shown and len(characters) > 12:
            shown = True
            text = "".join(CHARACTERS[c] for c in characters.tolist())
            show_mel(axes, recording.mel[::2], "\n", CODE_RATE)
            scale = recording.mel.shape[1] / len(characters)
            seconds = [frame / CODE_RATE for frame in range(len(fine))]
            axes.step(seconds, (rough + 0.5) * scale, color=ORANGE, lw=1.3, where="post", label="CTC head")
            axes.step(seconds, (fine + 0.5) * scale, color="white", lw=1.3, where="post", label="after realignment")
            mark(axes, text, starts_of(fine), recording.mel.shape[1])
            axes.legend(fontsize=7, loc="lower right")
            axes.set_xlabel("seconds", fontsize=7)
    save(figure, out / "alignment.png", FEW)
    apart = torch.cat(shifts) if shifts else torch.zeros(1)
    return {"recordings": len(shifts), "moved": moved / max(1, frames), "apart_ms": 1000 * float(apart.mean())}


@torch.no_grad()
def codebooks(run: Trained, out: Path) -> dict[str, Any]:
    """How often held-out frames choose each code of each book, the commonest first."""
    codec = run.model.codec
    codes = torch.cat([codec.encode(one.mel[::2].float()) for one in run.recordings])  # [N, Q]
    numbers: dict[str, Any] = {"frames": len(codes), "recordings": len(run.recordings)}
    figure = canvas(2.3)
    for book, axes in enumerate(figure.subplots(1, codes.shape[1], sharey=True)):
        share = torch.bincount(codes[:, book], minlength=codec.cfg.codes).float() / len(codes)
        entropy = float(-(share * share.clamp_min(1e-12).log2()).sum())
        axes.bar(
            range(codec.cfg.codes), share.sort(descending=True).values.tolist(), width=1, color=(BLUE, ORANGE)[book % 2]
        )
        axes.axhline(1 / codec.cfg.codes, color="black", lw=0.7, ls="--")
        axes.set_title(
            f"book {book}: {int((share > 0).sum())} of {codec.cfg.codes} codes used, {entropy:.2f} bits",
            fontsize=8,
            loc="left",
        )
        axes.set_xlabel("codes, the commonest first", fontsize=7)
        plain_axes(axes)
        numbers |= {f"used_{book}": int((share > 0).sum()), f"bits_{book}": entropy, f"most_{book}": float(share.max())}
    figure.axes[0].set_ylabel("share of frames", fontsize=7)
    save(figure, out / "codebooks.png")
    return numbers


@torch.no_grad()
def reconstruction(run: Trained, out: Path) -> dict[str, Any]:
    """A recording's log-mel, what the codec leaves of it, and the Talker's own for the same text."""
    recording = run.recording(SENTENCE)
    codec, frames = run.model.codec, recording.mel[::2].float()
    decoded = codec.decode(codec.encode(frames)[None])[0]
    spoken, position, characters = say(run, recording.text)
    figure = canvas(5.0)
    three = figure.subplots(3, 1)
    longest = max(len(frames), len(spoken)) / CODE_RATE
    bits = codec.cfg.codebooks * (codec.cfg.codes - 1).bit_length() * CODE_RATE
    show_mel(three[0], frames, f"recording: “{recording.text}”", CODE_RATE)
    show_mel(three[1], decoded, f"after the codec, {bits} bits a second", CODE_RATE)
    show_mel(
        three[2], spoken, "the Talker's, from the text alone; lines: when it goes on to the next character\n", CODE_RATE
    )
    mark(
        three[2],
        "".join(CHARACTERS[c] for c in characters[: int(position.max()) + 1]),
        starts_of(position),
        frames.shape[1],
    )
    for axes in three:
        axes.set_xlim(0, longest)
    three[2].set_xlabel("seconds", fontsize=7)
    save(figure, out / "reconstruction.png", FEW)
    errors = [
        float((codec.decode(codec.encode(m)[None])[0] - m).abs().mean())
        for m in (r.mel[::2].float() for r in run.recordings)
    ]
    return {
        "error": sum(errors) / len(errors),
        "recordings": len(errors),
        "bits": bits,
        "seconds": len(frames) / CODE_RATE,
        "spoken_seconds": len(spoken) / CODE_RATE,
    }


@torch.no_grad()
def say(run: Trained, text: str) -> tuple[Tensor, Tensor, list[int]]:
    """The Talker's log-mel ``[T, M]`` for a text, the character of each frame, and the characters."""
    ids, characters, tokens = spelled(text, run.tokenizer)
    thinker = run.model.thinker
    read = torch.tensor([[run.tokenizer.assistant, *ids, run.tokenizer.end]])
    states = thinker(thinker.embed(read))[0, 1:][tokens]
    codes, position = run.model.talker.generate(characters, states, torch.Generator().manual_seed(0))
    return run.model.codec.decode(codes[None])[0], position, characters.tolist()


@torch.no_grad()
def phases(run: Trained, out: Path) -> dict[str, Any]:
    """How near the log-mel of Griffin-Lim's sound comes to the wanted one, by rounds, with and without momentum."""
    some = run.recordings[:8]
    figure = canvas(2.4)
    axes = figure.subplots()
    numbers: dict[str, Any] = {"recordings": len(some)}
    for momentum, colour in ((0.0, ORANGE), (run.model.cfg.griffin_lim.momentum, BLUE)):
        errors = []
        for rounds in ITERATIONS:
            cfg = run.model.cfg.griffin_lim.model_copy(update={"iterations": rounds, "momentum": momentum})
            vocoder = GriffinLim(run.mel, cfg)
            found = [(log_mel(vocoder(one.mel[::2]), run.mel)[::2] - one.mel[::2].float()).abs().mean() for one in some]
            errors.append(float(torch.stack(found).mean()))
            numbers[f"{'fast' if momentum else 'plain'}_{rounds}"] = errors[-1]
        axes.plot(ITERATIONS, errors, "o-", color=colour, ms=3, label=f"momentum {momentum:g}")
    axes.axvline(run.model.cfg.griffin_lim.iterations, color=RED, lw=0.8, ls="--", label="as the profile has it")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ITERATIONS, [str(n) for n in ITERATIONS])
    axes.set_xlabel("rounds", fontsize=7)
    axes.set_ylabel("log-mel error, nats", fontsize=7)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    plain_axes(axes)
    save(figure, out / "phases.png")
    return numbers
