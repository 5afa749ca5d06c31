"""The README's tables from the metrics."""

import json
from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines import figures

README = "# Top\n<!-- figures -->\nold\n<!-- /figures -->\nmiddle\n<!-- times -->\n<!-- /times -->\nend\n"
SUMMARY = {
    "a": {"perplexity": {"value": 31.41592, "n": 59213, "command": "dvc repro evaluate"}},
    "swap": [{"name": "other picture | other answer", "value": True, "n": 100}],
}


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
    assert "| a perplexity | 31.42 | 59,213 | `dvc repro evaluate` |\n" in text
    assert "| other picture \\| other answer | yes | 100 | `dvc repro evaluate` |\n" in text
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
    (place / "metrics/summary.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="no figure"):
        figures.update(check=False)
    (place / "metrics/summary.json").unlink()
    with pytest.raises(UserError, match="dvc repro evaluate"):
        figures.update(check=False)
    assert (place / "README.md").read_text() == README
