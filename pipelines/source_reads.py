"""What a module reads, by its source: the repository files that it imports and the parameters it asks for.

Files are parsed, not imported, so that the answer costs milliseconds and needs none of the packages.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from muomni.errors import UserError

CONFIG = "muomni.config"
# Functions of muomni.config that read a top-level name of params.yaml, and which argument the name is.
READERS = {"section": 1, "scalar": 0}
# Reads everything, so that nobody could say which parameters a stage depends on.
FORBIDDEN = {"load_params"}


@dataclass
class Reads:
    """What a module reads, with all that it imports."""

    files: set[str] = field(default_factory=set)
    """Repository files, as relative POSIX paths, without ``__init__.py``."""
    params: set[str] = field(default_factory=set)
    """Top-level names of params.yaml."""
    problems: list[str] = field(default_factory=list)
    """What cannot be told by reading, or breaks a rule; each with its file and line."""


def find_module(root: Path, name: str) -> Path | None:
    """File of a dotted module name: ``a/b.py`` or ``a/b/__init__.py`` below ``root``, or None."""
    stem = root.joinpath(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def in_repository(root: Path, name: str) -> bool:
    """Whether a dotted name begins with a package or module of the repository, not an installed one."""
    return bool(name) and find_module(root, name.split(".")[0]) is not None


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield node
        yield from runtime_nodes(node)


def imported(node: ast.AST, package: str) -> tuple[list[str], list[str]]:
    """Dotted names that an import statement loads: those that must be modules, and those that may be.

    ``from a import b`` gives ``a`` and ``a.b``: b may be a module or something inside of a.

    Args:
        node: any node; those that import nothing give two empty lists.
        package: dotted package of the file, for relative imports.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names], []
    if not isinstance(node, ast.ImportFrom):
        return [], []
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, base] if base else above)
    return [base], [f"{base}.{alias.name}" for alias in node.names]


def is_trivial(tree: ast.Module) -> bool:
    """Whether a file holds only a docstring, constants, such as ``__version__ = "1"``, and environment defaults."""
    for node in tree.body:
        if ast.unparse(node) == "import os" or ast.unparse(node).startswith("os.environ.setdefault("):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) and (
            node.value is None or isinstance(node.value, ast.Constant)
        ):
            continue
        return False
    return True


def readers(tree: ast.Module) -> tuple[dict[str, str], set[str]]:
    """What a file calls the functions of `CONFIG`, {local name: function}, and the module itself."""
    functions: dict[str, str] = {}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == CONFIG:
            functions |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == CONFIG.rpartition(".")[0]:
            last = CONFIG.rpartition(".")[2]
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == last}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == CONFIG}
    return functions, modules


def read_params(tree: ast.Module, where: str, reads: Reads) -> None:
    """Add the top-level names of params.yaml that a file reads by literal name."""
    functions, modules = readers(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function: str | None = None
        if isinstance(node.func, ast.Name):
            function = functions.get(node.func.id)
        elif isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in modules:
            function = node.func.attr
        if function in FORBIDDEN:
            reads.problems.append(f"{where}:{node.lineno}: {function}() reads every parameter; use section or scalar")
        if function not in READERS:
            continue
        position = READERS[function]
        named = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
        value = named[0] if named else node.args[position] if len(node.args) > position else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            reads.params.add(value.value)
        else:
            reads.problems.append(f"{where}:{node.lineno}: {function}() must be given the name as a literal string")


def follow(root: Path, module: str) -> Reads:
    """What a module reads, following its imports within the repository.

    Args:
        root: the repository; only packages that lie in it are followed.
        module: dotted name, such as ``pipelines.tokens``.

    Raises:
        UserError: if there is no such module, or a file is not valid Python.
    """
    reads = Reads()
    start = find_module(root, module)
    if start is None:
        raise UserError(f"{module}: no such module in the repository")
    todo, seen = [(module, start)], {start}
    while todo:
        name, path = todo.pop()
        where = path.relative_to(root).as_posix()
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), filename=where)
        except (SyntaxError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: not valid Python: {error}") from None
        package = name.rpartition(".")[0]
        if path.name == "__init__.py":
            package = name
            if not is_trivial(tree):
                reads.problems.append(f"{where}: may hold only a docstring and constants: every import below runs it")
        else:
            reads.files.add(where)
        if name != CONFIG:
            read_params(tree, where, reads)
        names = [package]
        for node in runtime_nodes(tree):
            modules, maybe = imported(node, package)
            names += modules + maybe
            for missing in (found for found in modules if in_repository(root, found) and not find_module(root, found)):
                reads.problems.append(f"{where}: imports {missing}, which does not exist")
        for found in (found for found in names if in_repository(root, found)):
            parts = found.split(".")
            for stem in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
                target = find_module(root, stem)
                if target is not None and target not in seen:
                    seen.add(target)
                    todo.append((stem, target))
    return reads
