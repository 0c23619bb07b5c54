import math
from types import SimpleNamespace

import pytest

from sensia_trainer.utils.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_ranges


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "words"),
    [
        (POSITIVE, [1e-9, 3], [0, -1, math.inf, math.nan], "a number, more than 0"),
        (NOT_NEGATIVE, [0, 0.5], [-1e-9, math.inf], "a number, 0 or more"),
        (COUNT, [1, 7], [0, -1], "a number, 1 or more"),
        (SHARE, [0.1, 1], [0, 1.01], "a number, more than 0 and 1 at most"),
        (BELOW_ONE, [0, 0.99], [1, -0.1], "a number, 0 or more and less than 1"),
        (Range(), [-5.0], [math.inf, -math.inf, math.nan], "a number"),
    ],
)
def test_ranges(allowed, inside, outside, words):
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)
    assert str(allowed) == words


def test_settings_are_named_with_what_is_allowed():
    class Settings:
        rate = 0.1

    settings = Settings()
    check_ranges(settings, {"rate": POSITIVE, "missing": POSITIVE})
    check_ranges(SimpleNamespace(rate=None), {"rate": POSITIVE})
    for value in (0, math.nan, "0.1", True):
        settings.rate = value
        with pytest.raises(
            ValueError, match=f"`rate` is {value!r}, but must be a number, more than 0 .*default is 0.1"
        ):
            check_ranges(settings, {"rate": POSITIVE})
