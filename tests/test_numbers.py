"""Numbers in the pages that look measured have an origin."""

from pathlib import Path

import pytest

from pipelines.documents.numbers import listed, unmarked

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "text",
    [
        "It is right at 0.82.",
        "It takes 12 s.",
        "It needs 3 GB.",
        "Better by 14 %.",
        "It is 1,587 tokens a second.",
        "| a | 0.5 |\n|---|---|",
        "<!-- measured by: x -->\n\nOne, 0.1, is excused.\n\nThe next, 0.2, is not.",
        "# A\n\n## B\n\n<!-- no measurement: set -->\n\nThis 0.1.\n\n## C\n\nThat 0.2.",
        "<!-- measured by: x -->\n\n# A heading ends it\n\nIt is 0.82.",
        "It is 0.1 <!-- measured by: x -->.\n\nNot in the next: 0.2.",
    ],
)
def test_what_looks_measured_is_found_once(text: str) -> None:
    assert len(unmarked(text, "p.md")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.2.3 of a package, page 12, 16 patches, 2026-11-30.",
        "It is <!--= tiny.accuracy -->0.82<!--/-->.",
        "<!-- times: tiny -->\n| a | 0.5 |\n<!-- /times -->",
        "`lr=0.002` and\n\n```\n0.5\n```",
        "By `python benchmarks/load.py --json\n x` it is 12 ms:\n\n| a | 0.5 |\n|---|---|",
        "<!-- no measurement: set -->\n\n| a | 0.5 |\n|---|---|",
        "# A\n\n<!-- measured by: all of it -->\n\nThis 0.1.\n\n## B\n\nThat 0.2.",
        "[1.5](https://a.example/0.5 GB)".replace("1.5", "x"),
    ],
)
def test_what_has_an_origin_or_is_no_measurement_is_not(text: str) -> None:
    assert unmarked(text, "p.md") == []


def test_no_page_has_a_number_without_an_origin() -> None:
    assert listed(ROOT) == []
