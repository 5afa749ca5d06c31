"""Numbers in prose that look measured, and have no origin; none may be left.

A number has an origin if it stands in a marked place (`pipelines.documents.figures`), or if a command beside it or a
comment tells it: ``<!-- measured by: COMMAND -->`` or ``<!-- no measurement: WHY -->``, for what is set or computed.
In a paragraph it holds for that and a table below; alone for what follows, and below a heading for the section.
"""

import re
from pathlib import Path

from pipelines.documents.figures import INLINE
from pipelines.documents.pages import CODE, all_pages, read, without_blocks

UNITS = r"s|ms|seconds?|minutes?|min|hours?|h|days?|KB|MB|GB|TB|KiB|MiB|GiB|times|fold|tokens a second|frames a second"
MEASURED = re.compile(
    rf"(?<![\w.,/-])(?:\d[\d,]*\.\d+(?![\w.]*\.\d)(?![\w])|\d[\d,]*(?= %)|\d[\d,]*(?= (?:{UNITS})\b))",
)
EXCUSE = re.compile(r"<!-- (?:measured by|no measurement): [^>]+ -->")
COMMAND = re.compile(  # named in the text, it is an origin too
    r"`[^`\n]*(?:python (?:-m )?benchmarks|muomni (?:evaluate|bench|plan|params)|dvc\s+repro|pytest|make faults)\b"
    r"[^`]*`"
)
REGION = re.compile(r"^<!-- (?P<kind>figures|times|sizes): .*?^<!-- /(?P=kind) -->$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
ANYTHING, TABLE_ONLY = "anything", "table"  # what an excuse above holds for
HEADING = re.compile(r"^(?P<level>#+) ")
LINK = re.compile(r"\]\([^)]*\)|https?://\S+")


def without(pattern: re.Pattern[str], text: str) -> str:
    """A text in which what matches is blank, with the same lines."""
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def pieces(text: str) -> list[tuple[int, str]]:
    """Paragraphs, tables and headings of a page with the number of their first line; a heading stands alone."""
    found, kept, begin = list[tuple[int, str]](), list[str](), 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if HEADING.match(line) or not line.strip():
            found += [(begin, "\n".join(kept))] if kept else []
            found += [(number, line)] if line.strip() else []
            kept, begin = [], number + 1
        else:
            kept.append(line)
    return found


def unmarked(text: str, where: str) -> list[tuple[int, str]]:
    """Line and number of every number of a page that looks measured and has no origin."""
    text = without_blocks(text, where)
    text = COMMAND.sub(lambda span: "<!-- measured by: it -->" + "\n" * span[0].count("\n"), text)
    for pattern in (INLINE, REGION, CODE, LINK):
        text = without(pattern, text)
    found = list[tuple[int, str]]()
    after_heading = section = 0  # level of the heading right above, and of the section that is excused
    pending = ""  # what a comment right above holds for
    for begin, piece in pieces(text):
        heading = HEADING.match(piece)
        if heading:
            after_heading, pending = len(heading["level"]), ""
            section = 0 if section >= after_heading else section
            continue
        excused = EXCUSE.search(piece) is not None
        if not COMMENT.sub("", piece).strip():
            if excused and after_heading:
                section = section or after_heading
            pending = ANYTHING if excused else pending
            continue
        below = pending and (pending != TABLE_ONLY or piece.startswith("|"))
        if not (excused or below or section):
            for number, line in enumerate(without(COMMENT, piece).splitlines(), begin):
                found += [(number, match[0]) for match in MEASURED.finditer(line)]
        after_heading, pending = 0, TABLE_ONLY if excused else ""
    return found


def listed(root: Path) -> list[str]:
    """A line for each such number in the pages."""
    found = []
    for page in all_pages(root):
        name = page.relative_to(root).as_posix()
        for line, number in unmarked(read(page), name):
            found.append(f"{name}:{line}: where is {number} from? mark it as docs/documents.md tells")
    return found
