"""`sensia pretrain` as a user runs it, interrupted and resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import modeling_backpack  # noqa: F401
from sensia_trainer import cli
from sensia_trainer.training.pretraining import PretrainingTrainer


ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
text_files: [text.txt]
vocab_size: 270
block_size: 16
held_out_blocks: 4
backbone_config: {n_embd: 16, n_layer: 1, n_head: 2}
backpack_config: {num_senses: 4}
output_dir: out
max_steps: 6
per_device_train_batch_size: 4
save_steps: 3
logging_steps: 3
prediction_loss_only: true
use_cpu: true
report_to: none
disable_tqdm: true
"""


def pretrain(folder, *extra):
    command = [sys.executable, "-m", "sensia_trainer", "pretrain", "recipe.yaml", *extra]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_from_text_to_a_model_folder(tmp_path, monkeypatch, capsys):
    lines = [f"The {animal} has {number} books about the sea." for animal in ("cat", "dog") for number in range(40)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    done = pretrain(tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert f"Perplexity on held-out text: {metrics['after']['perplexity']:,.1f}" in done.stdout
    assert metrics["config"]["steps"] == 6 and metrics["data"]["documents"] == 80
    assert json.loads((tmp_path / "out" / "config.json").read_text())["use_cache"] is True

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer("The cat", return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] <= inputs["input_ids"].shape[1] + 3

    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Training data" in card and "80" in card

    assert not (tmp_path / "out" / ".text").exists()
    weights = tmp_path / "out" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pretrain", "recipe.yaml"]) == 0 and "This run is finished" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == written


def test_interrupted_and_resumed_it_is_the_run_that_was_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"The {animal} has {number} books about the sea." for animal in ("cat", "dog") for number in range(40)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert cli.main(["pretrain", "recipe.yaml", "--output_dir", "whole"]) == 0
    step = PretrainingTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(PretrainingTrainer, "training_step", interrupted)
        assert cli.main(["pretrain", "recipe.yaml", "--output_dir", "parts"]) == 130
    assert not (tmp_path / "parts" / "metrics.json").exists() and (tmp_path / "parts" / "checkpoint-3").is_dir()
    assert cli.main(["pretrain", "recipe.yaml", "--output_dir", "parts"]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
