"""The tests that transformers runs on its own models pass on ours."""

import re

import pytest

from tests.modeling_backpack.library_tests import Unavailable, run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_librarys_own_model_tests():
    try:
        completed = run()
    except Unavailable as error:
        pytest.skip(str(error))
    assert completed.returncode == 0, completed.stdout[-5000:] + completed.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", completed.stdout)[1])
    assert passed > 200, completed.stdout[-500:]
