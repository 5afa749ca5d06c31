"""What docstrings of public things lack, in `make check`; ``python -m pipelines.documents.docstrings`` lists it alone.

- a public module, class, function and method has a docstring
- what a function itself raises is named, below ``Raises:``; many parameters stand below ``Args:``, or have
  comments beside them
- what a class's docstring tells is not asked for again: a property among its ``Attributes:``, and the ``forward`` of a
  module that is one function of tensors, whose shapes the class gives
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines.documents.reference import modules

MANY = 5  # parameters from which on they are listed
# Not for callers to handle: faults of ours, and what ends a program.
OWN = {"AssertionError", "NotImplementedError", "SystemExit", "StopIteration", "KeyboardInterrupt"}
TRANSLATING = {"understood", "mlflow_errors"}  # blocks of `with` that make a `UserError` of what is raised in them
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(body: list[ast.stmt], prefix: str = "", told: str = "") -> Iterator[tuple[str, Function]]:
    """Public functions and methods of a module or class that need docstrings of their own, with their names.

    Args:
        body: of the module or class.
        prefix: what names begin with.
        told: docstring of the class.
    """
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body, f"{prefix}{node.name}.", ast.get_docstring(node) or "")
        elif isinstance(node, Function) and not node.name.startswith("_") and not by_class(node, told):
            yield f"{prefix}{node.name}", node


def by_class(node: Function, told: str) -> bool:
    """Whether the docstring of its class tells all of a method that has none itself."""
    if ast.get_docstring(node):
        return False
    if any(ast.unparse(one) == "property" for one in node.decorator_list):
        return re.search(rf"^\s+{node.name}: ", told.partition("Attributes:")[2], re.MULTILINE) is not None
    return node.name == "forward" and "``[" in told


def classes(body: list[ast.stmt]) -> Iterator[ast.ClassDef]:
    """Public classes of a module."""
    yield from (node for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))


def raised(node: Function) -> set[str]:
    """Names of the exceptions that a function makes itself and does not catch."""
    found, caught = set[str](), set[str]()
    nested = {
        inner
        for one in ast.walk(node)
        if one is not node and (isinstance(one, Function | ast.Lambda | ast.ClassDef) or translating(one))
        for inner in ast.walk(one)
    }
    for one in ast.walk(node):
        if one in nested:
            continue
        if isinstance(one, ast.Raise) and isinstance(one.exc, ast.Call):
            name = one.exc.func
            found.add(name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else "")
        if isinstance(one, ast.Try):
            inside = {inner for part in one.body for inner in ast.walk(part)}
            if any(isinstance(inner, ast.Raise) for inner in inside):
                types = [handler.type for handler in one.handlers if handler.type]
                caught |= {n.id for kind in types for n in ast.walk(kind) if isinstance(n, ast.Name)}
    return {name for name in found - OWN - caught if name[:1].isupper()}


def translating(node: ast.AST) -> bool:
    """Whether a block makes another error of what is raised in it."""
    used = [one.context_expr for one in node.items] if isinstance(node, ast.With) else []
    return any(isinstance(one, ast.Call) and ast.unparse(one.func) in TRANSLATING for one in used)


def commented(node: Function, lines: list[str]) -> bool:
    """Whether parameters are told of by comments beside them."""
    return any("  # " in line for line in lines[node.lineno - 1 : node.body[0].lineno - 1])


def registered(node: Function) -> bool:
    """Whether a function is called by pydantic, for a section's fields, or by FastAPI, whose routes tell of errors."""
    return any("validator" in ast.unparse(one) or "router." in ast.unparse(one) for one in node.decorator_list)


def lacking(where: str, node: Function, lines: list[str]) -> list[str]:
    """What one docstring lacks."""
    text = ast.get_docstring(node)
    if not text:
        return [f"{where}: no docstring"]
    if registered(node):
        return []
    found = []
    for name in sorted(raised(node)):
        if not re.search(rf"\b{name}\b", text):
            found.append(f"{where}: raises {name}, of which it says nothing; put it below 'Raises:'")
    given = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    many = len([name for name in given if name not in ("self", "cls")]) >= MANY
    if many and not re.search(r"^Args:|\b[Ss]ee `|as for `", text, re.MULTILINE) and not commented(node, lines):
        found.append(f"{where}: has {len(given)} parameters and no 'Args:'")
    return found


def all_lacking(root: Path) -> list[str]:
    """A line for everything that is lacking, by module."""
    found = []
    for module in modules(root):
        path = root / f"{module.replace('.', '/')}.py"
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        name = path.relative_to(root).as_posix()
        found += [] if ast.get_docstring(tree) else [f"{name}:1: no docstring"]
        found += [f"{name}:{c.lineno}: {c.name}: no docstring" for c in classes(tree.body) if not ast.get_docstring(c)]
        for what, node in functions(tree.body):
            found += lacking(f"{name}:{node.lineno}: {what}", node, text.splitlines())
    return found


if __name__ == "__main__":
    lines = all_lacking(Path.cwd())
    print("\n".join(lines))
    sys.exit(bool(lines))
