"""From a run to a Hub-ready folder: half-precision weights, one copy of the code, a card of reported results."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from sensia_trainer.hub.model_card import validate_card
from sensia_trainer.hub.release import release, reported
from tests.tiny import tiny_trainer


ROOT = Path(__file__).resolve().parents[3]


def evaluation(recall, accuracy, fingerprint="f00"):
    """What `examples/evaluate.py` writes, as far as a card reads it."""
    flores = {"split": "devtest", "purpose": "reporting", "source": "eng_Latn", "target": "ind_Latn"}
    flores |= {"fingerprint": fingerprint, "sense_recall_source_to_target": recall, "target_perplexity": 50.0}
    flores |= {"sense_recall_source_to_target_interval": [recall - 0.03, recall + 0.03], "pairs": 1012}
    scores = {"cond": {"accuracy": accuracy, "interval": [accuracy - 0.04, accuracy + 0.04], "at_chance": True}}
    task = {"task": "xcopa", "language": "id", "template": "plain", "split": "test", "items": 500, "scores": scores}
    return {"kind": "evaluation", "complete": True, "flores": flores, "tasks": [task]}


@pytest.fixture
def run(tmp_path):
    """A finished run with the metrics that it measured itself."""
    trainer = tiny_trainer(tmp_path / "run", max_steps=4, eval_rows=8, eval_steps=4)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    return tmp_path / "run"


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_the_folder_and_its_reported_results(run, tmp_path):
    code = tmp_path / "modeling_backpack"
    shutil.copytree(ROOT / "modeling_backpack", code, ignore=shutil.ignore_patterns("__pycache__"))
    files = {"after": evaluation(0.71, 0.52), "before": evaluation(0.01, 0.50), "control": evaluation(0.02, 0.51)}
    files = {name: write(tmp_path, f"{name}.json", content) for name, content in files.items()}
    folder = release(run, tmp_path / "cards" / "backpack-tiny-id", code, **files)

    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    links = {path.name: os.readlink(path) for path in folder.glob("*_backpack.py")}
    assert links == {name: f"../../modeling_backpack/{name}" for name in links} and "modeling_backpack.py" in links
    card = (folder / "README.md").read_text(encoding="utf-8")
    validate_card(card)
    assert "Measured on 1,012 sentence pairs of FLORES-200 devtest." in card
    recalls = "| 0.010 [-0.020, 0.040] | 0.710 [0.680, 0.740] | 0.020 [-0.010, 0.050] |"
    assert f"| recall@1 English → Indonesian, sense vectors {recalls}" in card
    assert "| XCOPA, Indonesian test | 500 | 0.520 [0.480, 0.560] | 0.510 [0.470, 0.550] |" in card
    assert "length-averaged log-likelihood, this model at chance |" in card
    assert "type: cambridgeltl/xcopa\n      config: id\n" in card
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["model_name"] == "backpack-tiny-id" and str(tmp_path) not in json.dumps(metrics)

    again = release(run, tmp_path / "cards" / "backpack-tiny-id", code)
    assert (again / "modeling_backpack.py").is_symlink() and (code / "modeling_backpack.py").is_file()
    assert "FLORES" not in (again / "README.md").read_text(encoding="utf-8")  # what the run measured itself


def test_a_model_without_senses(tmp_path, tokenizer):
    run = tmp_path / "run"
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64)).save_pretrained(run)
    tokenizer.save_pretrained(run)
    metrics = {"kind": "pretraining", "after": {"perplexity": 61.25}, "data": {"sources": ["books.txt"]}, "config": {}}
    write(run, "metrics.json", metrics)
    card = (release(run, tmp_path / "gpt2-tiny-en", tmp_path) / "README.md").read_text(encoding="utf-8")
    validate_card(card)
    assert "backbone of a Backpack without its senses" in card
    assert "trust_remote_code" not in card and "get_senses" not in card and "custom_code" not in card


def test_what_cannot_be_released(run, tmp_path):
    with pytest.raises(ValueError, match="`dtype` is 'float32'"):
        release(run, tmp_path / "a", tmp_path, "float32")
    with pytest.raises(ValueError, match="the run is not finished"):
        release(tmp_path, tmp_path / "a", tmp_path)
    with pytest.raises(ValueError, match="not of the same sentences"):
        reported(evaluation(0.7, 0.5), control=evaluation(0.1, 0.5, "bar"))
