"""What MkDocs does for this site beside its plugins (`hooks` in mkdocs.yml).

- README, CONTRIBUTING, CHANGELOG and LICENSE, which stand in the root of the repository, become pages
- lists of files in the navigation: an entry ``course/1*.md`` stands for all pages of that name, in order
- a page for every module of the API reference
- figures tell where they are from when the pointer rests on them
- equations become MathML, so that no script is fetched from elsewhere
"""

import re
from fnmatch import fnmatch
from html import escape, unescape
from pathlib import Path, PurePosixPath
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from pymdownx.slugs import slugify

from pipelines.documents import figures, reference
from pipelines.documents.pages import outside_blocks, outside_code

ROOT = Path(__file__).parents[2]
FROM_ROOT = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
FROM_ROOT |= {"LICENSE": "licence.md"}
LINK = re.compile(r"(?<=\]\()(?P<to>[^)#\s:]+)(?=[)#])")
EQUATION = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


class ShortIndent(Extension):
    """Lists nested by two spaces, as git hosts read them."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (Markdown's own name)
        """Set the parser's indent to two spaces."""
        md.tab_length = 2


def on_config(config: Any) -> Any:
    """Anchors as git hosts make them; the navigation with its lists of files and its reference."""
    config.markdown_extensions.append(ShortIndent())
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    docs = Path(config.docs_dir)
    there = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    config.nav = expand(config.nav, there)
    return config


def expand(nav: Any, there: list[str]) -> Any:
    """A navigation in which patterns are the files that they match, and ``reference`` the modules' pages."""
    if isinstance(nav, dict):
        return {title: expand(below, there) for title, below in nav.items()}
    if not isinstance(nav, list):
        return reference.navigation(ROOT) if nav == "modules" else nav
    made: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            made += [name for name in there if fnmatch(name, entry)]
        else:
            made.append(expand(entry, there))
    return [entry for entry in made if not (isinstance(entry, dict) and list(entry.values()) == [[]])]


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    from mkdocs.structure.files import File

    for source, target in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source == "LICENSE":
            text = f"# Licence\n\n```text\n{text}```\n"
        files.append(File.generated(config, target, content=LINK.sub(inside_site, text)))
    for name, text in reference.pages(ROOT).items():
        files.append(File.generated(config, name, content=text))
    return files


def inside_site(link: re.Match[str]) -> str:
    """Where a link of a page in the root leads in the site."""
    to = FROM_ROOT.get(link["to"], link["to"])
    return to.removeprefix("docs/")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of docs/ to pages of the root lead to their pages in the site; figures tell where they are from."""
    below = len(PurePosixPath(page.file.src_uri).parts) - 1
    for source, target in FROM_ROOT.items():
        markdown = markdown.replace(f"]({'../' * (below + 1)}{source}", f"]({'../' * below}{target}")
    return outside_blocks(markdown, lambda part: outside_code(part, lambda text: figures.INLINE.sub(told, text)))


def told(mark: re.Match[str]) -> str:
    """A figure with its origin as a tooltip."""
    text, about = figures.inline(ROOT, mark["ref"])
    return f'<span class="figure" title="{escape(figures.from_where(about).replace("`", ""))}">{text}</span>'


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Equations as MathML."""
    return EQUATION.sub(mathml, html)


def mathml(equation: re.Match[str]) -> str:
    """One equation; that of a block in a box that scrolls where the screen is narrow."""
    from latex2mathml.converter import convert

    block = equation["tag"] == "div"
    made = convert(unescape(equation["tex"]).strip(), display="block" if block else "inline")
    return f'<div class="equation">{made}</div>' if block else made
