"""The source code that an exported model needs, taken out of this package so that it imports without it.

The model is not written a second time. Starting from whole modules, every definition that they use is looked up in the
module that it comes from, with what it uses in turn; each module is then written with these definitions only, as they
stand here, and with imports from beside it in the place of imports from the package.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "muomni."
ROOMS = ("muomni.export.hf.", "muomni.export.runtime.", "muomni.export.", PACKAGE)  # what the names of files leave out
HEADER = "# Taken from {name} of muOmni by `muomni export`; what the exported model does not need is left out."
LONGEST = 120  # columns


@dataclass
class Module:
    """One source file.

    Attributes:
        name: dotted, as it is imported.
        lines: its source.
        statements: at its top level, but for imports and the docstring.
        docstring: the statement of it, or None.
        defined: the statements that give each name its value, or change it.
        imported: of each local name the import that makes it.
    """

    name: str
    lines: list[str]
    statements: list[ast.stmt] = field(default_factory=list)
    docstring: ast.stmt | None = None
    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, tuple[ast.Import | ast.ImportFrom, ast.alias]] = field(default_factory=dict)
    needed: set[ast.stmt] = field(default_factory=set)
    needed_imports: set[str] = field(default_factory=set)


def read_module(name: str) -> Module:
    """Parse a module of this package."""
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(source)
    module = Module(name, source.splitlines())
    for number, statement in enumerate(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                module.imported[alias.asname or alias.name.partition(".")[0]] = (statement, alias)
            continue
        if number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            module.docstring = statement
            continue
        module.statements.append(statement)
        for defined in names_given(statement):
            module.defined.setdefault(defined, []).append(statement)
    return module


def names_given(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at a module's top level defines, or changes something of."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def names_used(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement may read, and those in annotations that are in quotes."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield node.value


def inner_imports(statement: ast.stmt) -> Iterator[ast.ImportFrom]:
    """Imports from this package within a statement, as in a function."""
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            yield node


class Bundle:
    """What some modules need.

    Args:
        roots: names of modules that are taken whole.

    Raises:
        ValueError: if a module imports in a way that cannot be followed.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self.modules: dict[str, Module] = {}
        self.roots = tuple(roots)
        for name in self.roots:
            module = self.module(name)
            for statement in module.statements:
                self.take(module, statement)

    def module(self, name: str) -> Module:
        """A module, parsed once."""
        if name not in self.modules:
            self.modules[name] = read_module(name)
        return self.modules[name]

    def need(self, module: Module, name: str) -> None:
        """Take what a name stands for in a module."""
        if name in module.defined:
            for statement in module.defined[name]:
                self.take(module, statement)
        elif name in module.imported:
            module.needed_imports.add(name)
            self.follow(*module.imported[name])

    def follow(self, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
        """Take what an import brings, if it comes from this package.

        Raises:
            ValueError: if the import has another form, or names what is not there.
        """
        source = statement.module if isinstance(statement, ast.ImportFrom) else alias.name
        if source is None or not f"{source}.".startswith(PACKAGE):
            return
        if isinstance(statement, ast.Import) or statement.level or f"{source}." == PACKAGE:
            raise ValueError(f"{ast.unparse(statement)}: write `from {PACKAGE}module import name`")
        found = self.module(source)
        if alias.name not in found.defined and alias.name not in found.imported:
            raise ValueError(f"{ast.unparse(statement)}: {source} defines no {alias.name} at its top level")
        self.need(found, alias.name)

    def take(self, module: Module, statement: ast.stmt) -> None:
        """Take a statement and all that it uses."""
        if statement in module.needed:
            return
        module.needed.add(statement)
        for inner in inner_imports(statement):
            for alias in inner.names:
                self.follow(inner, alias)
        for name in names_used(statement):
            self.need(module, name)

    def packages(self) -> set[str]:
        """What has to be installed: the packages that are imported, but for Python's own."""
        found = set[str]()
        for module in self.modules.values():
            for name in module.needed_imports:
                statement, alias = module.imported[name]
                source = statement.module if isinstance(statement, ast.ImportFrom) else alias.name
                found.add((source or "").partition(".")[0])
        return found - set(sys.stdlib_module_names) - {"muomni"}

    def files(self, beside: str = ".") -> dict[str, str]:
        """The source of each file, by its name.

        Args:
            beside: what stands before a module's name where a module imports another: ``.`` for files in one package,
                or the package's name and a dot for a script outside of it.
        """
        return {
            f"{flat(name)}.py": self.source(module, beside) for name, module in self.modules.items() if module.needed
        }

    def source(self, module: Module, beside: str) -> str:
        """A module with what is needed of it."""
        lines = [HEADER.format(name=module.name.replace(".", "/") + ".py")]
        if module.docstring is not None:
            lines += segment(module, module.docstring)
        if imports := list(self.imports(module, beside)):
            lines += ["", *imports]
        last: ast.stmt | None = None
        for statement in module.statements:
            if statement not in module.needed:
                continue
            text = "\n".join(segment(module, statement))
            for inner in inner_imports(statement):
                assert inner.module is not None
                text = text.replace(f"from {inner.module} import", f"from {beside}{flat(inner.module)} import")
            assigned = isinstance(statement, ast.Assign | ast.AnnAssign)
            if not (assigned and isinstance(last, ast.Assign | ast.AnnAssign)):
                lines += [""] if assigned and last is None else ["", ""]
            lines.append(text)
            last = statement
        return "\n".join(lines) + "\n"

    def imports(self, module: Module, beside: str) -> Iterator[str]:
        """The lines of the imports that are needed, in the order of the original."""
        end = 0  # of the import before: where the original has a blank line, so has the copy
        for statement in dict.fromkeys(statement for statement, _ in module.imported.values()):
            aliases = [
                alias
                for name, (where, alias) in module.imported.items()
                if where is statement and name in module.needed_imports
            ]
            if not aliases:
                continue
            if end and not all(module.lines[end : statement.lineno - 1]):
                yield ""
            end = statement.end_lineno or 0
            names = [ast.unparse(alias) for alias in aliases]
            if isinstance(statement, ast.Import):
                yield from (f"import {name}" for name in names)
                continue
            source = statement.module or ""
            if source.startswith(PACKAGE):
                source = beside + flat(source)
            line = f"from {source} import {', '.join(names)}"
            yield line if len(line) <= LONGEST else f"from {source} import (\n    " + ",\n    ".join(names) + ",\n)"


def flat(name: str) -> str:
    """A module's name without its package: ``muomni.data.files`` is ``data_files``."""
    prefix = next(room for room in ROOMS if name.startswith(room))
    return name.removeprefix(prefix).replace(".", "_")


def segment(module: Module, statement: ast.stmt) -> list[str]:
    """A statement's lines, decorators and the comments right before it among them."""
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    while first and module.lines[first - 1].startswith("#"):
        first -= 1
    return module.lines[first : statement.end_lineno]
