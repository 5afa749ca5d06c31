"""How long a page takes to read, and which pages take too long.

Words, those of tables too, count at `WORDS` a minute, each line of a block at `LINE` seconds, each picture at
`PICTURE`. Comments and addresses are not read; answers that unfold are. `NOT_READ` is what one looks things up in.
"""

import re
from pathlib import Path

from pipelines.documents.numbers import COMMENT
from pipelines.documents.pages import all_pages, blocks, read, without_blocks

LONGEST = 15  # minutes of a page
WORDS = 200  # a minute: slow, as for a text with new terms
LINE, PICTURE = 5, 15  # seconds
NOT_READ = ("docs/log.md",)  # a logbook, searched and not read from top to bottom
SHOWN = re.compile(r"!\[[^\]]*\]\([^)]*\)")
ADDRESS = re.compile(r"\]\([^)]*\)|https?://\S+|</?[a-z][^>\n]*>")


def minutes(text: str, where: str) -> float:
    """Minutes that a page takes.

    Args:
        text: of the page.
        where: its name, for messages.

    Raises:
        UserError: if a block is not closed.
    """
    lines = sum(bool(line.strip()) for block in blocks(text, where) for line in block.text.splitlines())
    prose = COMMENT.sub("", without_blocks(text, where))
    pictures = len(SHOWN.findall(prose))
    words = ADDRESS.sub(" ", SHOWN.sub("", prose)).split()
    spoken = sum(any(c.isalnum() for c in word) for word in words)
    return spoken / WORDS + (lines * LINE + pictures * PICTURE) / 60


def too_long(root: Path) -> list[str]:
    """A line for each page that takes longer than `LONGEST` minutes.

    Raises:
        UserError: if a block of a page is not closed.
    """
    found = []
    for page in all_pages(root):
        name = page.relative_to(root).as_posix()
        taken = minutes(read(page), name)
        if taken > LONGEST and name not in NOT_READ:
            found.append(f"{name}: takes {taken:.1f} minutes to read, {LONGEST} at most; divide it")
    return found
