"""Blocks that quote the code: below ``<!-- code: PATH NAME -->`` stands the source of that name, as it is now.

``NAME`` is a class, function, method (``Block.forward``) or constant of a Python file; without one the whole file is
meant, of any kind. Options follow behind bars: ``| from TEXT`` begins at the first line that has the text,
``| to TEXT`` ends at the first one from there on; ``| without docstring`` leaves that out.
"""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from muomni.errors import UserError
from pipelines.documents.pages import FENCE

MARK = re.compile(r"^(?P<indent> *)<!-- code: (?P<what>.*?) -->\s*$")


@dataclass(frozen=True)
class Quote:
    """What a mark asks for."""

    path: str
    name: str = ""
    begin: str = ""
    end: str = ""
    docstring: bool = True


def parse(what: str) -> Quote:
    """A mark's words.

    Raises:
        UserError: if they are none.
    """
    head, *options = (part.strip() for part in what.split(" | "))
    path, _, name = head.partition(" ")
    begin = end = ""
    docstring = True
    for option in options:
        word, _, text = option.partition(" ")
        if word == "from" and text:
            begin = text
        elif word == "to" and text:
            end = text
        elif option == "without docstring":
            docstring = False
        else:
            raise UserError(f"unknown option {option!r}; there are: from TEXT, to TEXT, without docstring")
    return Quote(path, name.strip(), begin, end, docstring)


def source(root: Path, quote: Quote) -> str:
    """The lines that a quote stands for, without common indentation.

    Raises:
        UserError: if the file, the name or a text is not there.
    """
    path = root / quote.path
    if not path.is_file():
        raise UserError(f"quotes {quote.path}, which is not there")
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if quote.name:
        node = find(ast.parse(text), quote.name)
        if node is None:
            raise UserError(f"quotes {quote.name} of {quote.path}, which is not there")
        lines = lines_of(lines, node, quote.docstring)
    return textwrap.dedent("\n".join(cut(lines, quote))) + "\n"


def find(tree: ast.AST, name: str) -> ast.stmt | None:
    """The statement that defines a dotted name."""
    first, _, rest = name.partition(".")
    for node in getattr(tree, "body", []):
        if first in defined(node):
            return find(node, rest) if rest else node
    return None


def defined(node: ast.stmt) -> list[str]:
    """Names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def lines_of(lines: list[str], node: ast.stmt, docstring: bool) -> list[str]:
    """A statement's lines, from its first decorator on."""
    begin = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))]) - 1
    end = node.end_lineno or node.lineno
    body = getattr(node, "body", [])
    if docstring or not (body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)):
        return lines[begin:end]
    after = body[0].end_lineno or body[0].lineno
    rest = lines[after:end]
    while rest and not rest[0].strip():
        rest = rest[1:]
    return [*lines[begin : body[0].lineno - 1], *rest]


def cut(lines: list[str], quote: Quote) -> list[str]:
    """The lines from one text to another.

    Raises:
        UserError: if a text is in no line.
    """

    def first(text: str, after: int) -> int:
        found = next((i for i in range(after, len(lines)) if text in lines[i]), None)
        if found is None:
            raise UserError(f"quotes {quote.path} {quote.name} where it says {text!r}, which it does not")
        return found

    begin = first(quote.begin, 0) if quote.begin else 0
    end = first(quote.end, begin) + 1 if quote.end else len(lines)
    return lines[begin:end]


def filled(root: Path, page: str, text: str) -> str:
    """A page with its quotes as the code is now; the block right below a mark is replaced.

    Raises:
        UserError: naming page and line, if a mark has no block, or what it quotes is not there.
    """
    lines, made, at = text.splitlines(keepends=True), list[str](), 0
    closing = ""
    while at < len(lines):
        line = lines[at].rstrip("\n")
        made.append(lines[at])
        at += 1
        fence = FENCE.match(line)
        if closing:  # marks within a block are text
            closing = "" if line.strip() == closing else closing
            continue
        if fence:
            closing = fence["fence"]
        mark = MARK.match(line)
        if mark is None:
            continue
        opening = FENCE.match(lines[at].rstrip("\n")) if at < len(lines) else None
        if opening is None:
            raise UserError(f"{page}:{at}: a block (```python) must follow this mark of quoted code")
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == opening["fence"]), len(lines))
        try:
            quoted = source(root, parse(mark["what"]))
        except UserError as error:
            raise UserError(f"{page}:{at}: {error}") from None
        made += [lines[at], textwrap.indent(quoted, mark["indent"]), *lines[end : end + 1]]
        at = end + 1
    return "".join(made)
