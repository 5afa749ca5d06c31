"""A page to listen with: a row a sentence, a player for each sound, what a recogniser heard of it.

One file without scripts. Sounds are inside it, so that it can be sent, and opens in MLflow's view of a run as it does
from a folder.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.evaluate.text_scores import edit_distance

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #8886; }
table.figures { width: auto; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
audio { width: 13rem; max-width: 100%; height: 2.2rem; display: block; }
.wrong { color: #c33; }
small { opacity: .8; }
"""


def player(wave: Tensor, rate: int, label: str) -> str:
    """An audio element that holds a sound ``[samples]`` as FLAC of 16 bits."""
    buffer = io.BytesIO()
    pcm = np.round(wave.detach().cpu().clamp(-1, 1).numpy() * 32767).astype(np.int16)
    soundfile.write(buffer, pcm, rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<audio controls preload="none" aria-label="{html.escape(label)}" src="data:audio/flac;base64,{data}"></audio>'
    )


def transcript(wanted: str, heard: str) -> str:
    """What was heard, marked if it is not what should be said."""
    edits = edit_distance(normalise(wanted), heard)
    if not edits:
        return f"<small>{html.escape(heard)}</small>"
    return f'<small class="wrong">{html.escape(heard) or "(nothing)"} ({edits} edits)</small>'


def write_page(
    path: Path,
    title: str,
    figures: Sequence[tuple[str, str]],
    texts: Sequence[str],
    waves: Mapping[str, Sequence[Tensor]],
    heard: Mapping[str, Sequence[str]],
    rate: int,
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: its heading.
        figures: names and values above the sentences.
        texts: the sentences.
        waves: by signal, float32 ``[samples]`` of the first sentences; a row for each of them.
        heard: by signal, transcripts; nothing is shown for a signal without any.
        rate: samples a second.
    """
    rows = max((len(some) for some in waves.values()), default=0)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("text", *waves))
    body = []
    for number in range(rows):
        cells = [f"<td>{html.escape(texts[number])}</td>"]
        for name, some in waves.items():
            sound = player(some[number], rate, f"{name}: {texts[number]}") if number < len(some) else ""
            said = transcript(texts[number], heard[name][number]) if heard.get(name) and sound else ""
            cells.append(f"<td>{sound}{said}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    shown = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="number">{html.escape(value)}</td></tr>' for name, value in figures
    )
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f'<body><h1>{html.escape(title)}</h1>\n<table class="figures">{shown}</table>\n'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(body)}</tbody></table></body></html>\n",
        encoding="utf-8",
    )
