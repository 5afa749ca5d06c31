"""The README's tables from the metrics."""

import json
import re
from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines import figures, sizes

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

README = "# Top\n<!-- figures -->\nold\n<!-- /figures -->\nmiddle\n<!-- times -->\n<!-- /times -->\nend\n"
SUMMARY = {"thinker_perplexity": {"value": 31.41592, "n": 59213}, "swaps_passed": {"value": 6, "n": 6}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a README, metrics and one stage's time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / "state"))
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "state/times").mkdir(parents=True)
    record = {"stage": "tokens", "seconds": 2.4, "peak_mb": 1234, "finished": "2026-01-02T03:04:05+00:00"}
    (tmp_path / "state/times/tokens.json").write_text(json.dumps(record))
    return tmp_path


def test_tables_are_filled_and_the_rest_stays(place: Path) -> None:
    figures.update(check=False)
    text = (place / "README.md").read_text()
    assert "| thinker perplexity | 31.42 | 59,213 | `dvc repro evaluate` |\n" in text
    assert "| swaps passed | 6 | 6 | `dvc repro evaluate` |\n" in text
    assert "| tokens | 2 | 1,234 | `make times` |\n" in text
    assert "old" not in text and text.startswith("# Top\n<!-- figures -->\n| Figure") and text.endswith("-->\nend\n")
    figures.update(check=False)
    assert (place / "README.md").read_text() == text


def test_check_sees_another_figure_but_not_another_time(place: Path) -> None:
    figures.update(check=False)
    figures.update(check=True)
    time = place / "state/times/tokens.json"
    time.write_text(time.read_text().replace("2.4", "99"))
    figures.update(check=True)
    before = (place / "README.md").read_bytes()
    (place / "metrics/summary.json").write_text(json.dumps(SUMMARY).replace("31.4", "32.4"))
    with pytest.raises(UserError, match="differ"):
        figures.update(check=True)
    assert (place / "README.md").read_bytes() == before


def test_what_is_missing_is_one_line(place: Path) -> None:
    (place / "README.md").write_text(README.replace("<!-- /figures -->", ""))
    with pytest.raises(UserError, match="<!-- figures -->"):
        figures.update(check=False)
    (place / "README.md").write_text(README)
    for content in ('{"a": 1}', "[]", "{}"):
        (place / "metrics/summary.json").write_text(content)
        with pytest.raises(UserError, match="no figures"):
            figures.update(check=False)
    (place / "metrics/summary.json").unlink()
    with pytest.raises(UserError, match="dvc repro evaluate"):
        figures.update(check=False)
    assert (place / "README.md").read_text() == README


def test_sizes_in_the_docs_are_those_of_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sizes.update(check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    names = {page.parent / link for link in re.findall(r"\]\(((?!http)[^)#]+)\)", text)}
    names |= {ROOT / name for name in re.findall(r"`((?:muomni|pipelines|tests|profiles|docs)/[\w./]+)`", text)}
    assert [str(name) for name in sorted(names) if not name.exists()] == []
    # A page of the docs is read in one sitting; a log only ever grows.
    assert page.parent == ROOT or page.name == "log.md" or len(text.splitlines()) <= 150
