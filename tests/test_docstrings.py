"""Docstrings of public things have what applies."""

import ast
from pathlib import Path

import pytest

from pipelines.documents import docstrings

ROOT = Path(__file__).parents[1]
KNOWN = 65  # what they lack; it may only become less


def lacking(text: str) -> list[str]:
    return docstrings.lacking("f", ast.parse(text).body[0], text.splitlines())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def f(): return 1", "no docstring"),
        ('def f():\n    """It."""\n    raise UserError("x")', "raises UserError"),
        (
            'def f():\n    """It.\n\n    Raises:\n        OSError: if.\n    """\n    raise UserError("x")',
            "raises UserError",
        ),
        ('def f(a, b, c, d, e):\n    """It."""', "no 'Args:'"),
    ],
)
def test_what_a_docstring_lacks_is_told(text: str, what: str) -> None:
    assert len(lacking(text)) == 1 and what in lacking(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        'def f():\n    """It.\n\n    Raises:\n        UserError: if.\n    """\n    raise UserError("x")',
        'def f():\n    """It."""\n    try:\n        raise UserError("x")\n    except UserError:\n        pass',
        'def f():\n    """It."""\n    assert False',
        'def f(a, b, c, d, e):\n    """It; see `g`."""',
        'def f(\n    a,  # [B]\n    b, c, d, e\n):\n    """It."""\n    return 1',
        '@field_validator("x")\ndef f(x):\n    """It."""\n    raise ValueError("x")',
    ],
)
def test_what_is_told_elsewhere_is_not(text: str) -> None:
    assert lacking(text) == []


def test_docstrings_lack_no_more_than_they_did() -> None:
    found = docstrings.all_lacking(ROOT)
    assert len(found) <= KNOWN, "\n".join(found)
