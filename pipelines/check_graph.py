"""Compare what dvc.yaml declares with what the code reads: ``python -m pipelines.check_graph [--write]``.

A stage whose command is ``python -m package.module`` must list as deps exactly the repository's ``.py`` files
that the module imports, directly or through others, and as params exactly the top-level names of params.yaml
that those files read by ``section(Cls, "name")`` and ``scalar("name")``. So an edit reruns what it can
change, and nothing else.

``__init__.py`` files are run by every import below them, so they may hold only a docstring and constants, and
are not listed. Data deps are left alone. ``--write`` puts the lists right.
"""

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from muomni.errors import UserError
from pipelines.source_reads import follow


def entry_module(cmd: Any) -> str:
    """Module that a stage runs: ``python -m pipelines.tokens`` gives ``pipelines.tokens``.

    Raises:
        UserError: if the command is anything else.
    """
    words = shlex.split(cmd) if isinstance(cmd, str) else []
    if len(words) < 3 or words[0] != "python" or words[1] != "-m" or not re.fullmatch(r"[\w.]+", words[2]):
        raise UserError(f"cmd must be 'python -m package.module', found {cmd!r}")
    return words[2]


def dep_path(dep: Any) -> str:
    """Path of an entry of ``deps``, which is a string or a mapping with one key."""
    return str(next(iter(dep)) if isinstance(dep, dict) else dep)


def is_source(root: Path, path: str) -> bool:
    """Whether a dep is source code: a ``.py`` file, or a folder that is a package."""
    return path.endswith(".py") or (root / path / "__init__.py").is_file()


def param_name(entry: Any) -> str:
    """Top-level name of an entry of ``params`` such as ``thinker`` or ``thinker.d_model``.

    Raises:
        UserError: if it belongs to another file than params.yaml.
    """
    if not isinstance(entry, str):
        raise UserError(f"params of other files than params.yaml are not checked, found {dict(entry)!r}")
    return entry.split(".")[0]


def compare(declared: set[str], real: set[str], what: str) -> list[str]:
    """One line for each name that only one of the two sets has."""
    missing = [f"{what} '{name}' is read but not declared" for name in sorted(real - declared)]
    return missing + [f"{what} '{name}' is declared but not read" for name in sorted(declared - real)]


def check_stage(root: Path, spec: Any, write: bool) -> list[str]:
    """Problems of one stage; with ``write``, its lists are put right in place and only the rest is reported.

    Raises:
        UserError: if the stage cannot be checked at all.
    """
    body = spec.get("do", spec)  # a foreach or matrix stage has its body there
    reads = follow(root, entry_module(body.get("cmd")))
    deps, params = body.get("deps") or [], body.get("params") or []
    sources = {dep_path(dep) for dep in deps if is_source(root, dep_path(dep))}
    names = {param_name(entry) for entry in params}
    if not write:
        found = compare(sources, reads.files, "dep") + compare(names, reads.params, "param")
        return sorted(reads.problems) + found
    if sources != reads.files:
        data = [dep for dep in deps if not is_source(root, dep_path(dep))]
        replace(body, "deps", [*sorted(reads.files), *data])
    if names != reads.params:
        kept = [entry for entry in params if param_name(entry) in reads.params]
        replace(body, "params", [*kept, *sorted(reads.params - names)])
    return sorted(reads.problems)


def replace(body: Any, key: str, values: list[Any]) -> None:
    """Set a list of a stage, in its place right behind ``cmd`` or ``deps`` if it was not there."""
    if key in body:
        body[key][:] = values
    elif values:
        keys = list(body)
        body.insert(keys.index("deps" if "deps" in keys else "cmd") + 1, key, values)


def check_graph(root: Path, write: bool = False) -> list[str]:
    """Problems of all stages of ``root/dvc.yaml``, one line each; with ``write`` the file is put right first.

    Raises:
        UserError: if dvc.yaml is missing or no valid YAML.
    """
    path = root / "dvc.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    text = path.read_text(encoding="utf-8")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    # Lists keep the file's own indentation: "deps:\n  - a" or "deps:\n- a".
    style = re.search(r"^( *)deps:.*\n\1( *)- ", text, flags=re.MULTILINE)
    indented = style is not None and len(style.group(2)) > 0
    yaml.indent(mapping=2, sequence=4 if indented else 2, offset=2 if indented else 0)
    try:
        graph = yaml.load(text)
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    problems = []
    for name, spec in ((graph or {}).get("stages") or {}).items():
        try:
            problems += [f"dvc.yaml: {name}: {problem}" for problem in check_stage(root, spec, write)]
        except UserError as error:
            problems.append(f"dvc.yaml: {name}: {error}")
    if write and graph != YAML().load(text):
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(graph, file)
    return problems


def main() -> None:
    """Print the problems; exit code 1 if there are any, 2 if dvc.yaml cannot be read."""
    parser = argparse.ArgumentParser(description="Compare dvc.yaml with the imports and parameters of its stages.")
    parser.add_argument("--write", action="store_true", help="rewrite the deps and params lists of dvc.yaml")
    options = parser.parse_args()
    try:
        problems = check_graph(Path.cwd(), options.write)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        if not options.write:
            print("put the lists right with: python -m pipelines.check_graph --write", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
