"""A tiny model to look at, with words and languages."""

import pytest

from sensia_trainer.explorer.models import Explored


PAIRS = [("cat", "kucing"), ("chair", "kursi"), ("book", "buku"), ("river", "sungai"), ("sea", "laut")]
HOSTILE = {
    "empty": "",
    "blank": " \n\t ",
    "long": "The cat sleeps. " * 625,  # 10,000 characters
    "one long word": "x" * 10_000,
    "markup": "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> & \"quoted\"",
    "template": "${window.hacked = 1} {{7*7}} {0} %s $x^2$ \\frac",
    "scripts": "水 и القطة ไทย 🐈‍⬛ ạ́",
    "control": "a\x00b\u202ec\u200bd",
    "special": "<|endoftext|> cat",
}


@pytest.fixture(scope="session")
def explored(tiny_model, tokenizer) -> Explored:
    """Random weights, but sharp: so that senses differ in what they do."""
    import torch

    torch.manual_seed(0)
    return Explored("tiny-id", tiny_model(initializer_range=0.3), tokenizer, ("en", "id"), PAIRS)


@pytest.fixture(scope="session")
def before(tiny_model, tokenizer) -> Explored:
    import torch

    torch.manual_seed(1)
    return Explored("tiny-en", tiny_model(), tokenizer, ("en", "id"), PAIRS)
