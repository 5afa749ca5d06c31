"""Figures, times and sizes in the pages, from files; and what pages name."""

import json
import re
from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines.documents import figures, filling

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

ABOUT = {"command": "dvc repro evaluate", "machine": "two cores", "seed": 3, "revision": "abc1234"}
FIGURES = {
    "accuracy": {"value": 0.81666, "n": 120, "interval": [0.73, 0.87]},
    "thinker_perplexity": {"value": 31.41592, "n": 59213},
    "swaps_passed": {"value": 6, "n": 6},
}
TIMES = [{"stage": "tokens", "seconds": 2.4, "peak_mb": 1234}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a page and a file of figures."""
    (tmp_path / "docs/figures").mkdir(parents=True)
    keep(tmp_path, {"about": ABOUT, "figures": FIGURES, "times": TIMES, "speed, median": {"16": 1458}})
    return tmp_path


def keep(root: Path, found: object) -> None:
    (root / "docs/figures/tiny.json").write_text(json.dumps(found))


def page(root: Path, text: str) -> str:
    """What a page becomes; filling it again must change nothing."""
    (root / "docs/p.md").write_text(text)
    filling.write(root)
    made = (root / "docs/p.md").read_text()
    assert filling.differing(root) == [] and filling.write(root) == []
    return made


def test_inline_figures_as_they_are_wanted(root: Path) -> None:
    text = (
        "Right: <!--= tiny.accuracy -->x<!--/-->, <!--= tiny.accuracy .2f -->y<!--/-->, "
        "<!--= tiny.accuracy .0% --><!--/--> of <!--= tiny.accuracy.n -->1<!--/-->; "
        "<!--= tiny: speed, median / 16 , -->0<!--/--> a second, `<!--= code -->`\n"
    )
    made = page(root, text)
    assert re.sub("<!--.*?-->", "", made) == "Right: 0.8167, 0.82, 82 % of 120; 1,458 a second, ``\n"
    assert "`<!--= code -->`" in made
    assert figures.inline(root, "tiny.accuracy")[1] == {**ABOUT, "n": 120, "interval": [0.73, 0.87]}


def test_tables_of_figures_and_times(root: Path) -> None:
    made = page(root, "a\n<!-- figures: tiny -->\nold\n<!-- /figures -->\nb\n<!-- times: tiny -->\n<!-- /times -->\n")
    assert "| accuracy | 0.8167 | 120 | 0.73 to 0.87 |\n" in made and "| swaps passed | 6 | 6 |  |\n" in made
    assert "Measured with `dvc repro evaluate`, seed 3, two cores, revision abc1234.\n<!-- /figures -->\nb\n" in made
    assert "| tokens | 2 | 1,234 | `make times` |\n" in made and "old" not in made
    some = page(root, "<!-- figures: tiny swaps_passed -->\n<!-- /figures -->\n")
    assert "swaps" in some and "accuracy" not in some


def test_another_figure_in_the_file_is_seen_and_marks_in_blocks_are_text(root: Path) -> None:
    page(root, "It is <!--= tiny.accuracy -->x<!--/-->.\n\n```text\n<!--= nowhere.x -->0<!--/-->\n```\n")
    keep(root, {"about": ABOUT, "figures": {"accuracy": {"value": 0.5, "n": 2}}})
    assert filling.differing(root) == ["docs/p.md: differs from code, figures or profiles; run `make figures`"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <!--= small.accuracy -->x<!--/-->", "docs/figures/small.json: no such file"),
        ("a <!--= tiny.precision -->x<!--/-->", "tiny.json has no precision"),
        ("a <!--= tiny.figures -->x<!--/-->", "is no figure"),
        ("a <!--= tiny.accuracy -->x", "<!--= tiny.accuracy --> has no other end"),
        ("<!--= tiny.accuracy -->x<!--/--> of", "a line begins with"),
        ("<!-- times: tiny -->\n", "<!-- times: tiny --> has no other end"),
        ("<!-- sizes: brain -->\n<!-- /sizes -->\n", "no table of sizes 'brain'"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_page(root: Path, text: str, message: str) -> None:
    (root / "docs/p.md").write_text(text)
    with pytest.raises(UserError, match=f"^docs/p.md: .*{re.escape(message)}"):
        filling.wanted(root)


def test_a_file_must_say_where_its_figures_are_from(root: Path) -> None:
    keep(root, {"about": {"command": "x", "seed": 0}, "figures": FIGURES})
    with pytest.raises(UserError, match="does not say machine, revision"):
        figures.load(root, "tiny")


def test_taking_a_run_keeps_its_seed_revision_and_order(root: Path, tmp_path: Path) -> None:
    (root / "metrics").mkdir()
    (root / "checkpoints/omni").mkdir(parents=True)
    (root / "state/times").mkdir(parents=True)
    (root / "metrics/summary.json").write_text(json.dumps(FIGURES))
    (root / "checkpoints/omni/card.json").write_text(json.dumps({"revision": "0123456789"}))
    (root / "params.yaml").write_text("profile: tiny\nseed: 7\n")
    record = {**TIMES[0], "finished": "2026-01-02T03:04:05+00:00"}
    (root / "state/times/tokens.json").write_text(json.dumps(record))
    figures.take(root, "mine", "a laptop", root / "state")
    found = figures.load(root, "mine")
    assert list(found["figures"]) == list(FIGURES) and found["times"] == TIMES
    assert found["about"] == {
        "command": "dvc repro evaluate",
        "machine": "a laptop",
        "seed": 7,
        "revision": "0123456",
        "profile": "tiny",
    }


def test_pages_agree_with_code_figures_and_profiles() -> None:
    assert filling.differing(ROOT) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    names = {page.parent / link for link in re.findall(r"\]\(((?!http)[^)#]+)\)", text)}
    names |= {ROOT / name for name in re.findall(r"`((?:muomni|pipelines|tests|profiles|docs)/[\w./]+)`", text)}
    assert [str(name) for name in sorted(names) if not name.exists()] == []
    # A page of the docs is read in one sitting; a log only ever grows.
    assert page.parent == ROOT or page.name == "log.md" or len(text.splitlines()) <= 150
