"""Docstrings of public things have what applies."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.documents import docstrings
from pipelines.smoke import copy_checkout

ROOT = Path(__file__).parents[1]


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
        'def f():\n    """It."""\n    with understood(a, b):\n        raise ValueError("x")',
    ],
)
def test_what_is_told_elsewhere_is_not(text: str) -> None:
    assert lacking(text) == []


def needed(text: str) -> list[str]:
    """The functions of which docstrings are asked."""
    return [name for name, _ in docstrings.functions(ast.parse(text).body)]


def test_what_a_class_tells_its_methods_need_not_tell_again() -> None:
    part = 'class Part(nn.Module):\n    """{}."""\n\n    def forward(self, x): ...\n    def other(self): ...\n'
    assert needed(part.format("Ids ``[B, T]`` to states ``[B, T, D]``")) == ["Part.other"]
    assert needed(part.format("A part")) == ["Part.forward", "Part.other"]
    task = 'class Task:\n    """A task.\n\n    Attributes:\n        {}: what is trained.\n    """\n\n'
    method = "    @property\n    def modules(self): ...\n"
    assert needed(task.format("modules") + method) == []
    assert needed(task.format("more_modules") + method) == ["Task.modules"]


def test_nothing_is_lacking() -> None:
    assert docstrings.all_lacking(ROOT) == []


def test_a_docstring_that_lacks_something_and_a_long_page_fail_the_check(tmp_path: Path) -> None:
    copy_checkout(ROOT, tmp_path)
    with (tmp_path / "muomni/mel.py").open("a") as code, (tmp_path / "docs/mel.md").open("w") as page:
        code.write("\n\ndef bare(): ...\n")
        page.write("# Mels\n\n" + "frames and bands " * 1100)
    check = [sys.executable, "-m", "pipelines.documents"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(check, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    told = done.stderr.splitlines()
    assert done.returncode == 1 and len(told) == 2, done.stderr
    assert told[0] == "docs/mel.md: takes 16.5 minutes to read, 15 at most; divide it"
    assert told[1].startswith("muomni/mel.py:") and told[1].endswith(": bare: no docstring")
