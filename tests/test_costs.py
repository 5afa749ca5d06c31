"""The costs: lines through measured figures, their limits, and that the measurement itself runs."""

import json
import re
from dataclasses import replace

import pytest

from benchmarks import costs, scale


def found(world: costs.World) -> list[costs.Step]:
    return costs.steps(world, costs.load("scale.json"), costs.load("rates.json"))


def test_work_grows_with_the_hours_and_prices_with_the_work() -> None:
    world = costs.World()
    steps = found(world)
    small, large = (costs.cells(costs.together(steps), hours, world) for hours in (1e3, 1e6))
    for cell in (1, 3, 7):  # core-hours, GPU-hours, dollars
        one, thousand = (float(row[cell].replace(",", "")) for row in (small, large))
        assert thousand == pytest.approx(1000 * one, rel=0.02)
    dearer = costs.cells(costs.together(steps), 1e3, replace(world, core_hour=0.08, gpu_hour=6.0))
    assert float(dearer[7].replace(",", "")) == pytest.approx(2 * float(small[7].replace(",", "")), rel=0.01)
    twice = {step.name: step.gpu for step in found(replace(world, epochs=2.0))}
    assert all(twice[step.name] == pytest.approx(2 * step.gpu) for step in steps)


def test_the_first_bottleneck_is_the_limit_that_is_met_first() -> None:
    step = costs.Step("x", alone=1.0, why="writing", memory=1e6, holds="all rows", files=1.0)
    world = costs.World(memory_gb=1.0, days=1.0, files=1e9)
    assert step.first(world) == (1000.0, "memory: all rows")
    assert step.first(replace(world, memory_gb=1e6)) == (86400.0, "writing, in one process")
    assert step.first(replace(world, memory_gb=1e9, days=1e6)) == (1e9, "the number of files")
    for one in found(costs.World()):
        hours, what = one.first(costs.World())
        assert hours == min(one.limits(costs.World()).values()) > 0 and what, one


def test_every_rate_says_where_it_was_measured_and_is_used() -> None:
    rates = costs.load("rates.json")
    code = (costs.PLACE.parents[1] / "benchmarks/costs.py").read_text()
    for name, entry in rates.items():
        assert entry["value"] > 0 and entry["from"] and f'"{name}"' in code, name
        for page in re.findall(r"[\w/-]+\.md", entry["from"]):
            assert (costs.PLACE.parents[1] / page).is_file(), page


def test_a_small_measurement_gives_what_the_costs_need() -> None:
    made = scale.measure(0.002)
    assert json.loads(json.dumps(made)) == made
    steps = costs.steps(costs.World(), made, costs.load("rates.json"))
    assert all(value >= 0 for step in steps for value in vars(step).values() if isinstance(value, float))
