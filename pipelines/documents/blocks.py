"""What is done with each fenced block of a page: it is run, read, or says why not.

- ``sh``, ``console`` (commands behind ``$`` with what they print) and ``python`` are run, in the order of the page, in
  a project whose graph ran at profile smoke (tests/test_document_blocks.py)
- ``yaml`` and ``json`` are read
- ``text`` and other languages are left alone; a block that quotes the code is compared with it

Comments above a block: ``<!-- not run: WHY -->``; ``<!-- when run: OLD => NEW; OLD => NEW -->`` exchanges words, for
another size or place; ``<!-- before: CODE -->`` is run before it; ``<!-- server: COMMAND -->`` is started and goes on
to the end of the page.
"""

import json
from dataclasses import replace
from pathlib import Path

import yaml

from pipelines.documents.pages import Block, all_pages, blocks, read

RUN = ("sh", "console", "python")
READ = ("yaml", "json")
LEFT_ALONE = ("text", "diff", "markdown", "toml", "ini", "html")


def runnable(page: Path, root: Path) -> list[Block]:
    """The blocks of a page that are run, with words exchanged and code put before as their comments say."""
    found = []
    for block in blocks(read(page), page.relative_to(root).as_posix()):
        if block.language in RUN and block.said("not run") is None and block.said("code") is None:
            found.append(as_run(block))
    return found


def as_run(block: Block) -> Block:
    """A block as it is run."""
    text = block.text
    for change in (block.said("when run") or "").split("; "):
        old, arrow, new = change.partition(" => ")
        if arrow:
            text = text.replace(old.strip(), new.strip())
    before = block.said("before")
    return replace(block, text=f"{before}\n{text}" if before else text)


def unclear(root: Path) -> list[str]:
    """A line for each block of which it is not clear what is done with it, or that cannot be read."""
    found = []
    for page in all_pages(root):
        name = page.relative_to(root).as_posix()
        found += [f"{name}:{b.line}: {fault}" for b in blocks(read(page), name) if (fault := fault_of(b))]
    return found


def fault_of(block: Block) -> str:
    """What is wrong with a block; empty if nothing is."""
    why = block.said("not run")
    if why is not None and not why:
        return "<!-- not run: ... --> gives no reason"
    for change in filter(None, (block.said("when run") or "").split("; ")):
        old, arrow, _ = change.partition(" => ")
        if not arrow or old.strip() not in block.text:
            return f"<!-- when run: ... --> exchanges {old.strip()!r}, which is not there"
    if block.language not in (*RUN, *READ, *LEFT_ALONE):
        known = ", ".join((*RUN, *READ, *LEFT_ALONE))
        return f"a block needs a language, one of {known}; found {block.language or 'none'}"
    if why is not None:
        return ""
    try:
        if block.language == "yaml":
            yaml.safe_load(block.text)
        if block.language == "json":
            json.loads(block.text)
    except (yaml.YAMLError, ValueError) as error:
        return f"no {block.language}: {' '.join(str(error).split())}"
    return ""
