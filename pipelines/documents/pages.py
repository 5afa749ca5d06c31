"""The pages of this project, and what stands in them: fenced blocks and marked places."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from muomni.errors import UserError

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)[^`\n]*$")
CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
COMMENT = re.compile(r"^ *<!--(?P<text>.*?)-->\s*$")


def all_pages(root: Path) -> list[Path]:
    """README, CONTRIBUTING and every page below docs/."""
    fixed = [path for name in ("README.md", "CONTRIBUTING.md") if (path := root / name).is_file()]
    return [*fixed, *sorted((root / "docs").rglob("*.md"))]


def read(path: Path) -> str:
    """A page's text.

    Raises:
        UserError: if there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; run this in the root of the repository")
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block: number of its opening line (from 1), language, text without the fences, comments right above."""

    line: int
    language: str
    text: str
    comments: tuple[str, ...]

    def said(self, word: str) -> str | None:
        """What a comment ``<!-- word: ... -->`` above the block says; None if there is none."""
        for comment in self.comments:
            key, colon, rest = comment.partition(":")
            if colon and key.strip() == word:
                return rest.strip()
        return None


def blocks(text: str, where: str) -> list[Block]:
    """All fenced blocks of a page, in order.

    Raises:
        UserError: if one is not closed.
    """
    found, lines, at = [], text.splitlines(), 0
    while at < len(lines):
        opening = FENCE.match(lines[at])
        if opening is None:
            at += 1
            continue
        closing = re.compile(rf"^ *{opening['fence']}`*\s*$")
        end = next((i for i in range(at + 1, len(lines)) if closing.match(lines[i])), None)
        if end is None:
            raise UserError(f"{where}:{at + 1}: this block is not closed")
        cut = len(opening["indent"])
        inside = "".join(line[min(cut, len(line) - len(line.lstrip(" "))) :] + "\n" for line in lines[at + 1 : end])
        found.append(Block(at + 1, opening["language"], inside, tuple(comments_above(lines, at))))
        at = end + 1
    return found


def comments_above(lines: list[str], at: int) -> Iterator[str]:
    """Comments on the lines right above a line, from the nearest; empty lines between are passed over."""
    while at > 0:
        at -= 1
        comment = COMMENT.match(lines[at])
        if comment:
            yield comment["text"].strip()
        elif lines[at].strip():
            return


def replace(text: str, mark: str, content: str, page: str | Path) -> str:
    """Put content between ``<!-- mark -->`` and ``<!-- /mark -->`` of a page.

    Raises:
        UserError: if the markers are not there, or not in this order.
    """
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not (begin and end):
        raise UserError(f"{page}: has no <!-- {mark} --> followed by <!-- /{mark} -->; put the two lines in")
    return before + begin + content + end + after


def without_blocks(text: str, where: str) -> str:
    """A page whose blocks are empty lines.

    Raises:
        UserError: if a block is not closed.
    """
    lines = text.splitlines()
    for block in blocks(text, where):
        end = block.line + block.text.count("\n") + 1
        lines[block.line - 1 : end] = [""] * (end - block.line + 1)
    return "\n".join([*lines, ""])


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """A text that is changed but for its code spans."""
    spans = list[str]()

    def hide(span: re.Match[str]) -> str:
        spans.append(span[0])
        return f"\0{len(spans) - 1}\0"

    changed = change(CODE.sub(hide, text))
    return re.sub("\0(\\d+)\0", lambda place: spans[int(place[1])], changed)


def outside_blocks(text: str, change: Callable[[str], str]) -> str:
    """A page whose lines outside of fenced blocks are changed, each run of such lines in one piece."""
    pieces, kept, closing = [], list[str](), ""
    for line in text.splitlines(keepends=True):
        opening = FENCE.match(line.rstrip("\n"))
        if closing:
            pieces.append(line)
            if line.strip().startswith(closing) and not line.strip().strip("`"):
                closing = ""
        elif opening:
            pieces += [change("".join(kept)), line]
            kept, closing = [], opening["fence"]
        else:
            kept.append(line)
    return "".join([*pieces, change("".join(kept))])
