"""What pages are made of, written as Markdown or as HTML. Whatever they hold is text: no markup of it takes effect.

A page of HTML is one file: pictures and sounds are inside it, and it forbids itself to ask any host.
"""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import soundfile

MOST_TEXT = 1500  # characters of a cell

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.25rem; border-bottom: 1px solid #8886; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1rem; }
/* A shadow at the side where more of a table is hidden; what moves along covers it at the ends. */
.wide { overflow-x: auto; max-width: 100%; background:
  linear-gradient(to right, Canvas 1.5rem, transparent 3rem) left / 3rem 100% no-repeat local,
  linear-gradient(to left, Canvas 1.5rem, transparent 3rem) right / 3rem 100% no-repeat local,
  linear-gradient(to right, #8886, transparent) left / .8rem 100% no-repeat scroll,
  linear-gradient(to left, #8886, transparent) right / .8rem 100% no-repeat scroll; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
th { font-weight: 600; }
td.right, th.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
table.steps td, table.steps th { min-width: 9rem; max-width: 20rem; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid #8886; border-radius: .3rem; font-size: .85rem; }
img { max-width: 100%; height: auto; }
td img, figure img { display: block; margin-bottom: .3rem; }
img.curve { background: #fff; border-radius: .3rem; }
.curves { display: flex; flex-wrap: wrap; gap: .5rem; }
audio { width: 14rem; max-width: 100%; height: 2.2rem; display: block; }
figure { margin: .6rem 1rem .6rem 0; display: inline-block; vertical-align: top; width: 15rem; max-width: 100%; }
figcaption { font-size: .9rem; }
@media (max-width: 32rem) {
  table { font-size: .8rem; }
  th, td { padding: .25rem .3rem; }
  table.steps td, table.steps th { min-width: 7.8rem; padding: .3rem; }
  table.steps audio { width: 7.5rem; }  /* a narrower one has no button to play */
}
nav a { margin-right: 1rem; }
small { opacity: .75; }
"""
# The browser holds the page to it: nothing is fetched, no script runs.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; form-action 'none'"


def plain(text: object) -> str:
    """A text on one line, without control characters, and not too long."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return shown if len(shown) <= MOST_TEXT else shown[: MOST_TEXT - 1] + "…"


def escaped(text: object) -> str:
    """A text in HTML."""
    return html.escape(plain(text))


def marked(text: object) -> str:
    """A text in Markdown: none of its characters is markup, and `<` begins no tag."""
    shown = re.sub(r"([\\`*_\[\]|~]|^[-+=#])", r"\\\1", plain(text))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def embedded(kind: str, data: bytes) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def smaller(sound: bytes) -> tuple[str, bytes]:
    """The type and the bytes of a WAV or FLAC for a page: FLAC, which browsers play and has half a WAV's size.

    What cannot be read stays as it is: a page is worth no failure.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(sound), dtype="int16", always_2d=True)
    except soundfile.LibsndfileError:
        return "audio/wav", sound
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="FLAC", subtype="PCM_16")
    return "audio/flac", out.getvalue()


def listed(words: Mapping[str, str]) -> str:
    """Texts in HTML by what they are, one below the other."""
    return "<br>".join(f"<small>{escaped(name)}</small> {escaped(text)}" for name, text in words.items())


class Block(Protocol):
    """A part of a page."""

    def markdown(self) -> str:
        """As Markdown; empty for what Markdown cannot show without other files."""
        ...

    def html(self) -> str:
        """As HTML."""
        ...


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str

    def markdown(self) -> str:
        """As Markdown."""
        return marked(self.text)

    def html(self) -> str:
        """As HTML."""
        return f"<p>{escaped(self.text)}</p>"


@dataclass(frozen=True)
class Points:
    """A list."""

    items: Sequence[str]

    def markdown(self) -> str:
        """As Markdown."""
        return "\n".join(f"- {marked(item)}" for item in self.items)

    def html(self) -> str:
        """As HTML."""
        return "<ul>" + "".join(f"<li>{escaped(item)}</li>" for item in self.items) + "</ul>"


@dataclass(frozen=True)
class Code:
    """Commands to copy."""

    lines: Sequence[str]

    def markdown(self) -> str:
        """As Markdown; a line that would end the block is broken."""
        return "\n".join(("```", *(plain(line).replace("```", "` ` `") for line in self.lines), "```"))

    def html(self) -> str:
        """As HTML."""
        return "<pre>" + html.escape("\n".join(plain(line) for line in self.lines)) + "</pre>"


@dataclass(frozen=True)
class Table:
    """Rows below a head.

    Attributes:
        head: of each column.
        rows: cells, as many as the head has.
        right: columns that are aligned to the right.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()

    def markdown(self) -> str:
        """As Markdown."""
        rule = ["---:" if number in self.right else "---" for number in range(len(self.head))]
        lines = [map(marked, self.head), rule, *(map(marked, row) for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def html(self) -> str:
        """As HTML."""
        side = [' class="right"' if number in self.right else "" for number in range(len(self.head))]
        head = "".join(f"<th{s}>{escaped(cell)}</th>" for s, cell in zip(side, self.head, strict=True))
        rows = ("".join(f"<td{s}>{escaped(cell)}</td>" for s, cell in zip(side, row, strict=True)) for row in self.rows)
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def image(png: bytes, told: str, kind: str = "") -> str:
    """A picture in HTML; nothing for none.

    Args:
        png: the file.
        told: what it shows, for those who do not see it.
        kind: its class.
    """
    css = f' class="{kind}"' if kind else ""
    return f'<img{css} alt="{escaped(told)}" src="{embedded("image/png", png)}">' if png else ""


def player(sound: bytes, told: str) -> str:
    """A player of a WAV or FLAC in HTML, with what it plays for those who do not see where it stands."""
    source = embedded(*smaller(sound))
    return f'<audio controls preload="none" aria-label="{escaped(told)}" src="{source}"></audio>'


@dataclass(frozen=True)
class Example:
    """What a model was given and what it made of it; Markdown has the words alone.

    Attributes:
        words: by what they are.
        picture: PNG, empty for none.
        sounds: WAV or FLAC, by what they are.
    """

    words: Mapping[str, str]
    picture: bytes = b""
    sounds: Mapping[str, bytes] = field(default_factory=dict)

    def markdown(self) -> str:
        """As Markdown."""
        return "- " + "; ".join(f"{name}: {marked(text)}" for name, text in self.words.items())

    def html(self) -> str:
        """As HTML: the picture, the words, a player for each sound."""
        about = "; ".join(self.words.values())
        players = "".join(
            f"<small>{escaped(name)}</small>{player(sound, f'{name}: {about}')}" for name, sound in self.sounds.items()
        )
        return f"<figure>{image(self.picture, about)}<figcaption>{listed(self.words)}</figcaption>{players}</figure>"


@dataclass(frozen=True)
class Drawings:
    """Pictures on white, side by side where there is room; Markdown has none.

    Attributes:
        pictures: PNG, by what they show.
    """

    pictures: Mapping[str, bytes]

    def markdown(self) -> str:
        """As Markdown."""
        return ""

    def html(self) -> str:
        """As HTML."""
        shown = "".join(image(picture, title, "curve") for title, picture in self.pictures.items())
        return f'<div class="curves">{shown}</div>'


@dataclass(frozen=True)
class Part:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]

    def markdown(self) -> str:
        """As Markdown."""
        text = ""
        for shown in filter(None, (block.markdown() for block in self.blocks)):
            listed = shown.startswith("- ") and text.rpartition("\n")[2].startswith("- ")
            text += shown if not text else f"\n{shown}" if listed else f"\n\n{shown}"
        return f"## {marked(self.title)}\n\n{text}\n"

    def html(self) -> str:
        """As HTML."""
        return f'<h2 id="{anchor(self.title)}">{escaped(self.title)}</h2>\n' + "\n".join(b.html() for b in self.blocks)


def anchor(title: str) -> str:
    """The name of a heading in addresses."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def markdown(title: str, first: str, parts: Iterable[Part]) -> str:
    """A page as Markdown.

    Args:
        title: its heading.
        first: a paragraph below it.
        parts: the rest.
    """
    return "\n".join((f"# {marked(title)}\n", f"{marked(first)}\n", *(part.markdown() for part in parts)))


def page(title: str, first: str, parts: Sequence[Part]) -> str:
    """A page as one file of HTML, without scripts; see `markdown`."""
    links = " ".join(f'<a href="#{anchor(part.title)}">{escaped(part.title)}</a>' for part in parts)
    body = "\n".join(part.html() for part in parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escaped(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{escaped(title)}</h1>\n<p>{escaped(first)}</p>\n<nav>{links}</nav>\n{body}\n</body></html>\n"
    )
