"""A sample of `python tests/faults.py --full`: nothing goes on wrongly, and every answer can be read."""

import pytest

from tests.faults import try_all


@pytest.mark.slow
def test_a_sample_of_faults():
    results = try_all(quick=True)
    bad = [row for rows in results.values() for row in rows if row[1] != "clear"]
    assert sorted(results) == ["damage", "inputs", "kills"] and all(len(rows) > 1 for rows in results.values())
    assert not bad, "\n".join(map(" | ".join, bad))
