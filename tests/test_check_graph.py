"""The graph check finds what a stage reads, on small trees made here."""

from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines.check_graph import check_graph
from pipelines.source_reads import follow

CONFIG = '''"""Config."""
def section(cls, name, path="params.yaml"):
    return load_params(path)[name]
def scalar(name, path="params.yaml"):
    return load_params(path)[name]
def load_params(path="params.yaml"):
    return {}
'''
STAGE = '''"""Stage."""
import json
import muomni.codec
from muomni.config import scalar, section as read
from muomni.data import shards
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from muomni.unused import Thing
def run():
    read(object, "codec"); scalar("seed"); json.dumps({})
'''
GRAPH = """\
# The graph.
stages:
  codec:  # trains
    cmd: python -m pipelines.codec
    deps:
      - muomni/codec.py
      - muomni/config.py
      - muomni/data/shards.py
      - muomni/layers.py
      - pipelines/codec.py
      - data/shards   # made before
    params:
      - codec
      - seed
    outs:
      - checkpoints/codec
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one stage whose declaration is right."""
    files = {
        "muomni/__init__.py": '"""Package."""\n\n__version__ = "1"\n',
        "muomni/config.py": CONFIG,
        "muomni/layers.py": "",
        "muomni/unused.py": "",
        "muomni/codec.py": "import torch\nfrom . import layers\n",
        "muomni/data/__init__.py": "",
        "muomni/data/shards.py": "from muomni.layers import Block\n",
        "pipelines/__init__.py": "",
        "pipelines/codec.py": STAGE,
        "dvc.yaml": GRAPH,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_right_declaration_has_no_problem(tree: Path) -> None:
    assert check_graph(tree) == []


def test_follows_relative_nested_and_member_imports_but_not_type_checking(tree: Path) -> None:
    reads = follow(tree, "pipelines.codec")
    assert reads.files == {
        "muomni/codec.py",
        "muomni/config.py",
        "muomni/data/shards.py",
        "muomni/layers.py",
        "pipelines/codec.py",
    }
    assert reads.params == {"codec", "seed"}
    assert reads.problems == []


def test_import_inside_a_function_counts(tree: Path) -> None:
    edit(tree / "muomni/codec.py", "import torch\n", "def f():\n    import muomni.unused\n")
    assert check_graph(tree) == ["dvc.yaml: codec: dep 'muomni/unused.py' is read but not declared"]


def test_missing_and_extra_deps_are_named(tree: Path) -> None:
    edit(tree / "dvc.yaml", "muomni/layers.py", "muomni/unused.py")
    assert check_graph(tree) == [
        "dvc.yaml: codec: dep 'muomni/layers.py' is read but not declared",
        "dvc.yaml: codec: dep 'muomni/unused.py' is declared but not read",
    ]


def test_a_package_folder_is_no_substitute_for_its_files(tree: Path) -> None:
    edit(tree / "dvc.yaml", "muomni/data/shards.py", "muomni/data")
    assert len(check_graph(tree)) == 2


def test_missing_and_extra_params_are_named(tree: Path) -> None:
    edit(tree / "dvc.yaml", "- seed", "- mel.n_mels")
    assert check_graph(tree) == [
        "dvc.yaml: codec: param 'seed' is read but not declared",
        "dvc.yaml: codec: param 'mel' is declared but not read",
    ]


def test_a_param_read_by_a_helper_counts(tree: Path) -> None:
    edit(tree / "muomni/layers.py", "", 'import muomni.config\nx = muomni.config.section(object, name="mel")\n')
    assert check_graph(tree) == ["dvc.yaml: codec: param 'mel' is read but not declared"]


@pytest.mark.parametrize("call", ["read(object, NAME)", "scalar(f'{x}')", "read(object)"])
def test_a_name_that_is_no_literal_is_a_problem(tree: Path, call: str) -> None:
    edit(tree / "pipelines/codec.py", "json.dumps({})", call)
    (problem,) = check_graph(tree)
    assert "pipelines/codec.py:10" in problem and "literal" in problem


def test_reading_every_parameter_is_a_problem(tree: Path) -> None:
    edit(tree / "muomni/layers.py", "", "from muomni.config import load_params\nload_params()\n")
    (problem,) = check_graph(tree)
    assert "muomni/layers.py:2: load_params()" in problem


def test_code_in_an_init_file_is_a_problem(tree: Path) -> None:
    edit(tree / "muomni/__init__.py", '__version__ = "1"', "import json")
    (problem,) = check_graph(tree)
    assert "muomni/__init__.py" in problem


def test_import_of_a_file_that_is_not_there(tree: Path) -> None:
    edit(tree / "muomni/codec.py", "import torch", "import muomni.gone")
    (problem,) = check_graph(tree)
    assert "imports muomni.gone, which does not exist" in problem


@pytest.mark.parametrize(
    "cmd", ["python -m pipelines.gone", "python pipelines/codec.py", "python -m pipelines.${item}"]
)
def test_command_that_cannot_be_checked(tree: Path, cmd: str) -> None:
    edit(tree / "dvc.yaml", "python -m pipelines.codec", cmd)
    (problem,) = check_graph(tree)
    assert problem.startswith("dvc.yaml: codec: ")


def test_write_puts_the_lists_right_and_keeps_the_rest(tree: Path) -> None:
    wrong = GRAPH.replace("      - muomni/layers.py\n", "      - muomni/unused.py\n").replace("      - seed\n", "")
    (tree / "dvc.yaml").write_text(wrong)
    assert check_graph(tree, write=True) == []
    assert check_graph(tree) == []
    text = (tree / "dvc.yaml").read_text()
    for kept in ("# The graph.", "codec:  # trains", "\n      - data/shards", "\n      - checkpoints/codec"):
        assert kept in text
    assert check_graph(tree, write=True) == []
    assert (tree / "dvc.yaml").read_text() == text, "a second --write changed the file"


def test_write_leaves_a_right_file_alone_to_the_byte(tree: Path) -> None:
    check_graph(tree, write=True)
    assert (tree / "dvc.yaml").read_text() == GRAPH


def test_write_adds_lists_that_were_not_there(tree: Path) -> None:
    (tree / "dvc.yaml").write_text("stages:\n  codec:\n    cmd: python -m pipelines.codec\n    outs:\n    - out\n")
    check_graph(tree, write=True)
    assert check_graph(tree) == []
    lines = [line.strip() for line in (tree / "dvc.yaml").read_text().splitlines()]
    assert lines.index("deps:") < lines.index("params:") < lines.index("outs:")


def test_missing_or_broken_graph_is_one_line(tree: Path) -> None:
    (tree / "dvc.yaml").write_text("stages: [")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        check_graph(tree)
    assert "\n" not in str(caught.value)
    (tree / "dvc.yaml").unlink()
    with pytest.raises(UserError, match="no such file"):
        check_graph(tree)
