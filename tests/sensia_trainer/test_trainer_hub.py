"""`push_to_hub` of a trainer uploads its own card, rendered from metrics, and no pickle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from sensia_trainer.hub.model_card import validate_card
from tests.hub_server import HubServer


ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from tests.tiny import tiny_trainer
trainer = tiny_trainer(sys.argv[1], max_steps=4, eval_rows=8, eval_steps=2, hub_model_id="owner/backpack-tiny")
trainer.train()
trainer.push_to_hub()
"""


@pytest.mark.distributed
def test_the_card_that_is_pushed(tmp_path):
    folder = tmp_path / "run"
    with HubServer() as hub:
        environment = os.environ | hub.environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
        run = {"cwd": tmp_path, "env": environment, "text": True, "stdin": subprocess.DEVNULL, "capture_output": True}
        done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], **run)
        assert done.returncode == 0, done.stderr
        files = hub.files("models/owner/backpack-tiny")
    assert {"model.safetensors", "config.json", "modeling_backpack.py", "tokenizer.json", "metrics.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    text = files["README.md"].decode()
    validate_card(text)
    card = ModelCard(text)
    assert 'repo = "owner/backpack-tiny"' in card.text and card.text.lstrip().startswith("# backpack-tiny\n")
    assert "a model without a name" in card.text and card.data.base_model is None
    after = json.loads(files["metrics.json"])["after"]
    assert f"{after['target_perplexity']:.1f}" in card.text
