"""What every test stands on: offline, seeded, one thread a worker, a temporary Hugging Face home, tiny model parts."""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path


# Set before anything imports torch or a Hugging Face library: they read these once. Subprocesses inherit them.
HF_HOME = tempfile.mkdtemp(prefix="sensia-tests-")
os.environ.update(
    HF_HOME=HF_HOME,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

import pytest  # noqa: E402
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, set_seed  # noqa: E402

from tests.quick import quicken, savefig  # noqa: E402


torch.set_num_threads(1)

SENTENCES = [
    "The cat sleeps on the chair.",
    "Kucing tidur di atas kursi.",
    "A good book is worth reading twice.",
    "Buku yang bagus layak dibaca dua kali.",
    "Where is the nearest station?",
    "Di mana stasiun terdekat?",
    "The river runs down to the sea.",
    "Sungai mengalir ke laut.",
    "We will meet again tomorrow morning.",
    "Kita akan bertemu lagi besok pagi.",
]


def pytest_collection_modifyitems(items):
    """The files whose tests take long come first, then those with many: two workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("distributed")}
    number = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -number[item.path], str(item.path)))


def pytest_collection_finish(session):
    quicken()


def pytest_unconfigure(config):
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def seed():
    """The random state of Python, NumPy and torch at the start of every test."""
    set_seed(0)


@pytest.fixture
def real_pictures(monkeypatch):
    """PNGs are drawn, not one pixel."""
    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture(scope="session")
def sensia_data() -> Path:
    """The folder of real data sets (`train/`, `english/`, `eval/`) that SENSIA_DATA names."""
    folder = os.environ.get("SENSIA_DATA")
    if not folder:
        pytest.skip("SENSIA_DATA is unset: it names the folder with train/, english/ and eval/")
    if not Path(folder).is_dir():
        pytest.skip(f"SENSIA_DATA is {folder!r}, which is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def tokenizer() -> GPT2Tokenizer:
    """A byte-level BPE of 300 tokens; begin, end and padding are `<|endoftext|>`."""
    tokenizer = GPT2Tokenizer().train_new_from_iterator(SENTENCES, vocab_size=300)
    tokenizer.add_special_tokens(dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>"))
    tokenizer.model_max_length = 64
    return tokenizer


@pytest.fixture(scope="session")
def tiny_model(tokenizer):
    """A factory of freshly initialised Backpacks in evaluation mode: `tiny_model(num_senses=4, hidden_size=32)`.

    Keyword arguments that the signature does not name go to `BackpackConfig`.
    """
    from modeling_backpack import BackpackConfig, BackpackForCausalLM

    def build(hidden_size=32, num_layers=2, num_heads=2, num_positions=64, num_senses=4, **config):
        backbone = GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=hidden_size,
            n_layer=num_layers,
            n_head=num_heads,
            n_positions=num_positions,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return BackpackForCausalLM(BackpackConfig(backbone_config=backbone, num_senses=num_senses, **config)).eval()

    return build


@pytest.fixture
def tiny_gpt2(tokenizer):
    """A randomly initialised GPT-2 of two layers with sharp logits, so that its likelihoods differ."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config).eval()
