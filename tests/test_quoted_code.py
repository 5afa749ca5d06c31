"""Blocks of the pages that quote the code."""

from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines.documents import quoted

CODE = '''import os

WIDTHS: dict[str, int] = {
    "a": 1,
}


class Block:
    """A block."""

    size = 3

    @property
    def forward(self):
        """Does it.

        Returns:
            It.
        """
        x = 1

        return x


async def last():
    return None
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "b.yaml").write_text("one: 1\ntwo:\n  three: 3\nfour: 4\n")
    return tmp_path


def quote(root: Path, what: str) -> str:
    page = f"# T\n\n<!-- code: {what} -->\n```python\nold\n```\nend\n"
    text = quoted.filled(root, "p.md", page)
    assert text.startswith(f"# T\n\n<!-- code: {what} -->\n```python\n") and text.endswith("```\nend\n")
    assert quoted.filled(root, "p.md", text) == text
    return text.partition("```python\n")[2].removesuffix("```\nend\n")


def test_names_of_every_kind(root: Path) -> None:
    assert quote(root, "a.py WIDTHS") == 'WIDTHS: dict[str, int] = {\n    "a": 1,\n}\n'
    assert quote(root, "a.py Block.size") == "size = 3\n"
    assert quote(root, "a.py last") == "async def last():\n    return None\n"
    assert quote(root, "a.py Block.forward").startswith('@property\ndef forward(self):\n    """Does it.\n')
    assert quote(root, "a.py Block").startswith("class Block:\n") and quote(root, "a.py") == CODE


def test_parts(root: Path) -> None:
    assert quote(root, "a.py Block.forward | without docstring") == (
        "@property\ndef forward(self):\n    x = 1\n\n    return x\n"
    )
    assert quote(root, "a.py Block.forward | from x = 1 | to return") == "x = 1\n\nreturn x\n"
    assert quote(root, "b.yaml | from two: | to three") == "two:\n  three: 3\n"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("c.py Block", "p.md:3: quotes c.py, which is not there"),
        ("a.py Block.backward", "Block.backward of a.py, which is not there"),
        ("a.py Block.forward | from y = 1", "'y = 1', which it does not"),
        ("a.py Block | before x", "unknown option 'before x'"),
    ],
)
def test_what_is_gone_names_page_and_line(root: Path, what: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        quote(root, what)


def test_a_mark_without_a_block_is_told_and_one_inside_a_block_is_text(root: Path) -> None:
    with pytest.raises(UserError, match="p.md:1: a block"):
        quoted.filled(root, "p.md", "<!-- code: a.py last -->\n\ntext\n")
    page = "```text\n<!-- code: nowhere.py x -->\n```\n"
    assert quoted.filled(root, "p.md", page) == page
