"""The check as one page: it needs no other file, no network and no script."""

import base64
from collections.abc import Sequence
from html import escape

from muomni.check.findings import PROBLEMS, Sample, Section
from muomni.check.words import short

BINS = 24
MOST_BYTES = 3_000_000  # of all samples together, before they are written as text
MOST_ROWS = 30
WORST = 10
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c22; --good: #27832b; --bar: #4477cc; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem } h2 { font-size: 1.25rem; border-top: 1px solid var(--line); padding-top: 1rem }
h3 { font-size: 1rem; margin-bottom: .3rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line) }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap }
.bad { color: var(--bad); font-weight: 600 } .good { color: var(--good); font-weight: 600 }
.row { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; flex: 1 1 18rem; max-width: 24rem }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)) }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem }
.card audio { width: 100% } .card img { max-width: 100%; background: #fff } .card p { margin: .3rem 0 }
.small { font-size: .85rem; opacity: .8 } svg { width: 100%; height: auto }
rect { fill: var(--bar) } svg text { font-size: 11px; fill: currentColor }
@media (prefers-color-scheme: dark) { :root { --bad: #ff7b72; --good: #6cc76f; --bar: #79a8ff } }
"""


def bars(title: str, values: Sequence[float]) -> str:
    """A histogram as SVG. The first and the last bar also hold the hundredth at each end: one could hide all others."""
    ordered = sorted(values)
    edge = len(ordered) // 100
    low, high = ordered[edge], ordered[-1 - edge]
    width = (high - low) / BINS or 1.0
    counts = [0] * BINS
    for value in values:
        counts[min(max(int((value - low) / width), 0), BINS - 1)] += 1
    most, shapes = max(counts), []
    for number, count in enumerate(counts):
        height = 100 * count / most
        if count:
            told = f"{short(low + number * width)} to {short(low + (number + 1) * width)}: {count:,}"
            place = f'x="{number * 15}" y="{115 - height:.1f}" width="13" height="{height:.1f}"'
            shapes.append(f"<rect {place}><title>{escape(told)}</title></rect>")
    ends = f"{short(ordered[0])} to {short(ordered[-1])}"
    labels = (
        f'<text x="0" y="11">{most:,}</text><text x="0" y="130">{short(low)}</text>'
        f'<text x="360" y="130" text-anchor="end">{short(high)}</text>'
    )
    name = escape(f"{title}, {len(values):,} values from {ends}")
    picture = f'<svg viewBox="0 0 360 134" role="img" aria-label="{name}">{"".join(shapes)}{labels}</svg>'
    return f'<figure><h3>{escape(title)}</h3>{picture}<figcaption class="small">{ends}</figcaption></figure>'


def table(rows: Sequence[Sequence[object]]) -> str:
    """A table whose first row is its head; of many rows the first."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows[1 : MOST_ROWS + 1])
    more = f'<p class="small">and {len(rows) - 1 - MOST_ROWS:,} more</p>' if len(rows) - 1 > MOST_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(cell: object) -> str:
    if isinstance(cell, int | float):
        return f'<td class="number">{cell:,}</td>'
    return f"<td>{escape(str(cell))}</td>"


def problems(section: Section, limit: float) -> str:
    """The table of a section's problems."""
    if not section.problems:
        return '<p class="good">No problems.</p>'
    rows = []
    for name, found in section.problems.items():
        fails = section.fails(name, limit)
        word = ("stops" if PROBLEMS[name][0] in ("aside", "always") else "spoils") if fails else "note"
        items = "<br>".join(f"{escape(one.item)}: {escape(one.reason)}" for one in section.worst(name, WORST))
        more = f"<br>and {len(found) - WORST:,} more" if len(found) > WORST else ""
        rows.append(
            f'<tr><td class="{"bad" if fails else ""}">{word}</td><td>{escape(name)}</td>'
            f'<td class="number">{len(found):,} ({section.share(name):.2%})</td>'
            f"<td><details{' open' if fails else ''}><summary>{escape(PROBLEMS[name][1])}</summary>"
            f"{items}{more}</details></td></tr>"
        )
    head = "<tr><th></th><th>Problem</th><th>Items</th><th>What to do, and the worst</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _card(sample: Sample) -> str:
    address = f"data:{sample.kind};base64,{base64.b64encode(sample.data).decode()}"
    label, text = escape(sample.label), escape(sample.text)
    shown = ""
    if sample.kind.startswith("audio/"):
        shown = f'<audio controls preload="metadata" src="{address}" aria-label="{label}"></audio>'
    elif sample.kind.startswith("image/"):
        shown = f'<img src="{address}" alt="{text}">'
    return f'<div class="card">{shown}<p>{text}</p><p class="small">{label}</p></div>'


def page(sections: Sequence[Section], limits: Sequence[float]) -> str:
    """The page as HTML.

    Args:
        sections: what was found.
        limits: for each the share of bad items that does no harm.
    """
    failing = sum(
        section.fails(name, limit) for section, limit in zip(sections, limits, strict=True) for name in section.problems
    )
    verdict = f'<p class="bad">{failing} problems would stop or spoil a training.</p>'
    if not failing:
        verdict = '<p class="good">Nothing was found that would stop or spoil a training.</p>'
    parts, left = [], MOST_BYTES
    for section, limit in zip(sections, limits, strict=True):
        facts = [["", section.what.capitalize()], *([name, str(value)] for name, value in section.facts.items())]
        parts.append(f"<h2>{escape(section.what.capitalize())}: {escape(section.source)}</h2>")
        parts.append(f'<p class="small">{escape(section.address)}</p>{problems(section, limit)}')
        parts.append(f"<h3>Figures</h3>{table(facts)}")
        parts += [f"<h3>{escape(title.capitalize())}</h3>{table(rows)}" for title, rows in section.tables.items()]
        drawn = "".join(bars(title, values) for title, values in section.histograms.items() if values)
        parts.append(f'<div class="row">{drawn}</div>')
        cards = []
        for sample in section.samples:
            left -= len(sample.data)
            if left >= 0:
                cards.append(_card(sample))
        parts.append(f'<h3>Samples</h3><div class="cards">{"".join(cards)}</div>')
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Check of data</title><style>{STYLE}</style></head>"
        f"<body><h1>Check of data</h1>{verdict}{''.join(parts)}</body></html>\n"
    )
