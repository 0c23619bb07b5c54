"""Which rows of which languages a run meets, and when."""

import pytest

from sensia_trainer.training.sampling import LanguageSampler, rows_per_epoch, shares
from tests.reference import languages as reference


SIZES = [100, 40, 1000]


def sampler(mixed, temperature=5.0, **options):
    lengths = [7 * row % 13 + 1 for row in range(sum(SIZES))]
    return LanguageSampler(lengths, SIZES, 8, temperature=temperature, mixed=mixed, seed=3, **options)


def language_of(row):
    return 0 if row < 100 else 1 if row < 140 else 2


@pytest.mark.parametrize("temperature", [1.0, 5.0, 100.0])
def test_shares_are_sizes_to_the_power_of_one_over_the_temperature(temperature):
    expected = [reference.share(SIZES, number, temperature) for number in range(3)]
    assert shares(SIZES, temperature) == pytest.approx(expected, rel=1e-12)


def test_rows_of_an_epoch_by_hand():
    assert rows_per_epoch([100, 10_000], 1.0) == [100, 10_000]
    assert rows_per_epoch([100, 10_000], 2.0) == [100, 1000]  # square roots: 10 and 100
    assert rows_per_epoch([100, 10_000], 2.0, multiple=64) == [64, 640]
    # The smallest is what an epoch ends with: its whole batches count, not its rows.
    assert rows_per_epoch([120, 600_000], 5.0, multiple=64) == [64, 320]
    assert rows_per_epoch([3000, 60_000], 5.0, multiple=256) == [2816, 5120]
    assert rows_per_epoch([60_000] * 5, 5.0) == [60_000] * 5
    assert rows_per_epoch([64, 10_000_000], 1e9, multiple=64) == [64, 64]


@pytest.mark.parametrize("mixed", [True, False])
def test_no_row_twice_in_an_epoch_and_every_row_in_time(mixed):
    rows = sampler(mixed)
    seen = set()
    for epoch in range(120):
        rows.set_epoch(epoch)
        order = list(rows)
        assert len(order) == len(set(order)) == len(rows) == sum(rows.counts)
        assert [sum(language_of(row) == number for row in order) for number in range(3)] == rows.counts
        seen |= set(order)
    assert seen == set(range(sum(SIZES)))


def test_batches_of_one_language_and_of_all():
    ordered = list(sampler(False))
    batches = [ordered[start : start + 8] for start in range(0, len(ordered), 8)]
    assert all(len({language_of(row) for row in batch}) == 1 for batch in batches)
    assert len({language_of(batch[0]) for batch in batches}) == 3
    ordered = list(sampler(True))
    batches = [ordered[start : start + 8] for start in range(0, len(ordered) - 7, 8)]
    assert sum(len({language_of(row) for row in batch}) > 1 for batch in batches) > len(batches) / 2


@pytest.mark.parametrize("mixed", [True, False])
def test_the_order_follows_from_seed_and_epoch(mixed):
    once, again = sampler(mixed), sampler(mixed)
    for epoch in (5, 0, 5):
        once.set_epoch(epoch)
        again.set_epoch(epoch)
        assert list(once) == list(again)
    once.set_epoch(6)
    assert list(once) != list(again)


@pytest.mark.parametrize("mixed", [True, False])
def test_batches_are_alike_in_length(mixed):
    rows = sampler(mixed)
    ordered = [rows.lengths[row].item() for row in rows]
    spreads = [
        max(part) - min(part) for start in range(0, len(ordered) - 7, 8) if (part := ordered[start : start + 8])
    ]
    assert sum(spreads) / len(spreads) < 6  # 11 or so in random order
