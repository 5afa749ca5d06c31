"""How long pages take to read."""

from pathlib import Path

import pytest

from pipelines.documents.reading import LONGEST, minutes, too_long

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("word " * 200, 60),
        ("# A heading\n\nand - four / words\n", 1.5),
        ("<!-- a comment\nof lines -->[one](http://a.example/b c) and **two**", 0.9),
        ("| a | b |\n|---|---|\n| c | d e |\n", 1.5),
        ("```python\na = 1\n\nb = 2\n```\n", 10),
        ("![a picture of words](x.png)", 15),
        ("x < 1, and y > 2", 1.5),
    ],
)
def test_words_lines_and_pictures_count(text: str, seconds: float) -> None:
    assert minutes(text, "p.md") * 60 == pytest.approx(seconds)


def test_a_page_that_takes_too_long_is_told(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name, words in (("short", 200 * LONGEST), ("long", 200 * LONGEST + 1), ("log", 9999)):
        (tmp_path / f"docs/{name}.md").write_text("word " * words)
    (line,) = too_long(tmp_path)
    assert line.startswith("docs/long.md: takes 15.0 minutes")


def test_no_page_takes_longer() -> None:
    assert too_long(ROOT) == []
