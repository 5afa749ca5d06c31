"""The benchmark of preparing data: how much it makes of what, and what it compares."""

from pathlib import Path

import pytest

from benchmarks.prepare import SECONDS, STAGES, Clock, figures, sized
from muomni.params import read_params


@pytest.mark.parametrize(("pictures", "hours"), [(10_000, 10.0), (3_000, 0.5)])
def test_so_many_pictures_and_sentences_are_made(pictures: int, hours: float) -> None:
    params = sized(read_params(Path(__file__).parents[1] / "profiles/base.yaml"), pictures, hours)
    images = params.images
    made = images.singles_per_name * images.names + images.scenes + images.valid_singles + images.test_singles
    assert made + images.valid_scenes + images.test_scenes == pictures
    spoken = params.speech.sentences * (1 + params.speech.espeak_fraction)
    assert spoken * SECONDS / 3600 == pytest.approx(hours, rel=0.01) and params.speech.prose == 0


def test_the_whole_is_compared_with_its_parts_and_two_cores_with_one() -> None:
    clock = Clock()
    with clock.part("a"):
        pass
    assert clock.scaled(4)["a"].keys() == {"wall", "cpu"}
    parts = {"a": {"wall": 60.0, "cpu": 50.0}, "b": {"wall": 30.0, "cpu": 30.0}}
    stage = {"1": {"wall": 25.0, "cpu": 20.0}, "2": {"wall": 14.0, "cpu": 25.0}}
    found = figures(parts, {name: stage for name in STAGES})
    assert found["against_parts"] == {"1": 0.9, "2": 0.804} and found["two_cores_against_one"] == 1.786
    assert found["against_parts_by_cpu"] == {"1": 1.0, "2": 0.8} and found["met"]
    slow = stage | {"2": {"wall": 15.0, "cpu": 25.0}}
    assert not figures(parts, {name: slow for name in STAGES})["met"]
