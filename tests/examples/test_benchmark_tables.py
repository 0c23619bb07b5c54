"""The page about speed shows what was measured."""

import importlib
import json
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "results" / "benchmarks").glob("benchmark_*.json"))


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_the_page_holds_the_tables_of_the_results(file):
    module = importlib.import_module(f"examples.benchmarks.{file.stem.removeprefix('benchmark_')}")
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert module.tables(json.loads(file.read_text(encoding="utf-8"))) in page, "python examples/benchmark.py report"


def test_ratios_are_ours_to_the_peers():
    from examples.benchmarks.peers import compare, row

    turns = [
        {"units": 64, "losses": [2.0, 1.0], "processor_seconds_per_step": seconds, "wall_seconds_per_step": 9.0}
        | {"peak_memory_gb": 1.5, "memory_before_gb": 0.5}
        for seconds in (4.0, 2.0)
    ]
    ours = row("dense-64", turns)
    assert ours["units_per_second"] == 32 and ours["memory_gb"] == 1.0
    peer = ours | {"units_per_second": 16, "memory_gb": 2.0, "losses": [1.5, 1.0]}
    ratios = compare(ours, peer, predicted=0.75)
    assert ratios == {"speed": 2.0, "memory": 0.5, "difference_of_first_loss": 0.0}


def test_a_recipe_that_ends_worse_in_one_figure_is_not_as_good():
    from examples.benchmarks.quality import QUALITY, at_least_as_good

    one = dict(zip(QUALITY, (0.6, 0.7, 2.5)))
    assert at_least_as_good(one, one)
    assert not at_least_as_good(one | {"target_bits_per_byte": 2.6}, one)
    assert not at_least_as_good(one | {"sense_recall_target_to_source": 0.6}, one)


def test_the_time_to_a_quality_stands_beside_overlap():
    from examples.benchmarks.quality import OVERLAP, QUALITY, measured_at_the_end, tables

    after = dict(zip((*QUALITY, *OVERLAP), (0.6, 0.7, 2.5, 0.41, 0.42)))
    one = {"steps": 10, "seconds_per_step": 1.0, "seconds": 10.0} | measured_at_the_end({"after": after}, "a.json")
    text = tables(
        {"published": one, "recommended": one, "at_least_as_good": True, "speedup": 1.0, "speedup_of_a_pair": 1.0}
    )
    assert "| published | 10 | 1.00 | 0 | 10 | 0.600, 0.700 | 0.410, 0.420 | 2.500 |" in text
