"""Pages of the API reference, one for each module, made of its docstrings when the site is built."""

from pathlib import Path
from typing import Any

PACKAGES = ("muomni", "pipelines")
PLACE = "reference"


def modules(root: Path) -> list[str]:
    """Dotted names of all modules; packages' own files have nothing but a line of what they hold."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if not parts[-1].startswith("_") and "hf" not in parts and "runtime" not in parts:
                found.append(".".join(parts))
    return found


def page_of(module: str) -> str:
    """Where in the site a module's page is."""
    return f"{PLACE}/{module.replace('.', '/')}.md"


def pages(root: Path) -> dict[str, str]:
    """Every page and its text."""
    made = {page_of(name): f"# {name.split('.', 1)[1]}\n\n::: {name}\n" for name in modules(root)}
    return made


def navigation(root: Path) -> list[Any]:
    """Entries by package: ``{"muomni": [...], "muomni.data": [...]}``."""
    groups: dict[str, list[Any]] = {}
    for module in modules(root):
        package, _, last = module.rpartition(".")
        groups.setdefault(package, []).append({last: page_of(module)})
    return [{package: entries} for package, entries in groups.items()]
