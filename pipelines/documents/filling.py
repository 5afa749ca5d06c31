"""Everything in the pages that is made from something else: quoted code, figures, sizes, the drawing of the graph."""

import re
from collections.abc import Callable
from pathlib import Path

from muomni.data.files import atomic_write_text
from muomni.errors import UserError
from pipelines.documents import figures, graph_picture, quoted, sizes
from pipelines.documents.pages import all_pages, outside_blocks, outside_code, read

TABLE = re.compile(
    r"^<!-- (?P<kind>figures|times|sizes): (?P<what>[^>]*?) -->\n(?P<text>.*?)^<!-- /(?P=kind) -->$",
    re.DOTALL | re.MULTILINE,
)
TABLES: dict[str, Callable[[Path, str], str]] = {
    "figures": figures.figures_table,
    "times": figures.times_table,
    "sizes": sizes.filled,
}
OPEN = re.compile(r"<!--(?:= |\s(?:figures|times|sizes): )[^>]*-->|<!--/-->|<!-- /(?:figures|times|sizes) -->")
AT_LINE_START = re.compile(r"^<!--= ", re.MULTILINE)


def filled(root: Path, page: Path, text: str) -> str:
    """A page as it should be.

    Raises:
        UserError: naming the page, if what it asks for is not there.
    """
    name = page.relative_to(root).as_posix()
    try:
        text = outside_blocks(text, lambda part: outside_code(part, lambda prose: fill(root, prose)))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return quoted.filled(root, name, text)


def fill(root: Path, text: str) -> str:
    """Tables and inline figures of a text without blocks.

    Raises:
        UserError: if a mark is not closed, or asks for what is not there.
    """

    def made(mark: re.Match[str]) -> str:
        kind, what = mark["kind"], mark["what"]
        return f"<!-- {kind}: {what} -->\n{TABLES[kind](root, what)}<!-- /{kind} -->"

    if AT_LINE_START.search(text):
        raise UserError("a line begins with <!--= ...: Markdown takes it for HTML; put a word before it")
    left = OPEN.search(figures.INLINE.sub("", TABLE.sub("", text)))
    if left:
        raise UserError(f"{left[0]} has no other end; the marks are listed in docs/documents.md")
    return figures.filled(root, TABLE.sub(made, text))


def wanted(root: Path) -> dict[Path, str]:
    """Every file that is made or filled, with the text that it should have.

    Raises:
        UserError: if a page asks for what is not there.
    """
    pages = {page: filled(root, page, read(page)) for page in all_pages(root)}
    graph = root / "dvc.yaml"
    return pages | ({root / graph_picture.PICTURE: graph_picture.from_file(graph)} if graph.is_file() else {})


def differing(root: Path) -> list[str]:
    """A line for each file that is not as it should be."""
    found = []
    for path, text in wanted(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(f"{path.relative_to(root)}: differs from code, figures or profiles; run `make figures`")
    return found


def write(root: Path) -> list[Path]:
    """Write the files that are not as they should be, and return them."""
    written = []
    for path, text in wanted(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            atomic_write_text(path, text)
            written.append(path)
    return written
