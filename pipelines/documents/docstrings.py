"""What docstrings of public things lack: ``python -m pipelines.documents.docstrings`` lists it.

- a public module, class, function and method has a docstring
- what a function itself raises is named, below ``Raises:``; many parameters stand below ``Args:``, or have
  comments beside them
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
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Public functions and methods of a module or class, with their names."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node


def classes(body: list[ast.stmt]) -> Iterator[ast.ClassDef]:
    """Public classes of a module."""
    yield from (node for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))


def raised(node: Function) -> set[str]:
    """Names of the exceptions that a function makes itself and does not catch."""
    found, caught = set[str](), set[str]()
    nested = {
        inner
        for one in ast.walk(node)
        if one is not node and isinstance(one, Function | ast.Lambda | ast.ClassDef)
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
