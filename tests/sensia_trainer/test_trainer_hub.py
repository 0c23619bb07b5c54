"""What a trainer pushes goes the way of `sensia publish`: its own card, private, in whole commits without pickles."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from huggingface_hub import ModelCard

from sensia_trainer.hub.validation import validate_card
from tests.hub_server import TOKEN, HubServer
from tests.tiny import tiny_trainer


ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
import tests.quickened
from transformers import AutoModelForCausalLM
from tests.tiny import tiny_trainer

folder, token = Path(sys.argv[1]), sys.argv[2]
sys.argv = ["sensia", "adapt", "quickstart", "--hub_token", token]
trainer = tiny_trainer(folder, max_steps=4, eval_rows=8, eval_steps=2, hub_model_id="owner/backpack-tiny")
trainer.train()
try:
    trainer.push_to_hub()
except ValueError as error:
    refused = str(error)
commit = trainer.push_to_hub(license="cc0-1.0", base_model="owner/base")
# While training, into a repository made at the start, with a token among the settings; then the last one again.
trainer = tiny_trainer(folder / "2", max_steps=4, eval_rows=8, eval_steps=2, push_to_hub=True, save_strategy="steps",
                       save_steps=2, hub_model_id="live", hub_token=token)
card_metrics = trainer.card_metrics
trainer.card_metrics = lambda: card_metrics() | {"license": "mit"}
trainer.train()
(folder / "2" / "optimizer.pt").write_bytes(b"left by somebody")
try:
    trainer.save_model()
except ValueError as error:
    pickled = str(error)
(folder / "2" / "optimizer.pt").unlink()
trainer.save_model()
public = tiny_trainer(folder / "3", max_steps=1, hub_private_repo=False, hub_model_id="owner/open")
public.train()
public.push_to_hub(license="mit")
print(json.dumps({"refused": refused, "pickled": pickled, "url": commit.commit_url}))
"""


@pytest.mark.distributed
def test_what_is_pushed(tmp_path):
    with HubServer() as hub:
        environment = os.environ | hub.environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
        run = {"cwd": tmp_path, "env": environment, "text": True, "stdin": subprocess.DEVNULL, "capture_output": True}
        done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "run"), TOKEN], **run)
        assert done.returncode == 0, done.stderr
        files = hub.files("models/owner/backpack-tiny")
        commits = {name: hub.commits(f"models/owner/{name}") for name in ("backpack-tiny", "live", "open")}
        private = {name: hub.repos[f"models/owner/{name}"].private for name in commits}
        history = [commit["files"] for name in commits for commit in hub.repos[f"models/owner/{name}"].history[1:]]
    result = json.loads(done.stdout.splitlines()[-1])
    assert "licence of the weights is unknown" in result["refused"]
    assert "optimizer.pt is a pickle" in result["pickled"]
    assert result["url"].startswith(f"{hub.url}/owner/backpack-tiny/commit/")
    assert commits == {
        "backpack-tiny": ["End of training"],
        "live": ["Training in progress, step 2", "Training in progress, step 4", "Model save"],
        "open": ["End of training"],
    }
    assert private == {"backpack-tiny": True, "live": True, "open": False}
    for pushed in history:
        assert {"model.safetensors", "config.json", "tokenizer.json", "metrics.json", "README.md"} <= set(pushed)
        code = {"configuration_backpack.py", "conversion_backpack.py", "modeling_backpack.py", "sentence_backpack.py"}
        assert code | {"modules.json"} <= set(pushed)
        for name, (content, _) in pushed.items():
            assert name.endswith((".json", ".md", ".py", ".safetensors")), name
            assert TOKEN.encode() not in content and str(tmp_path).encode() not in content, name
            assert "state" not in name and "manifest" not in name
    text = files["README.md"].decode()
    validate_card(text, to_publish=True)
    card = ModelCard(text)
    assert 'repo = "owner/backpack-tiny"' in card.text and "# Backpack micro, English–Indonesian" in card.text
    assert card.data.license == "cc0-1.0" and card.data.base_model == "owner/base"
    metrics = json.loads(files["metrics.json"])
    assert metrics["command"] == "sensia adapt quickstart --hub_token <redacted>"
    assert f"{metrics['after']['target_perplexity']:.1f}" in card.text


@pytest.mark.parametrize("error", [RuntimeError("Error while uploading"), OSError("no network")])
def test_training_goes_on_where_a_push_on_the_way_fails(tmp_path, monkeypatch, error):
    trainer = tiny_trainer(tmp_path, max_steps=2, eval_rows=8, save_strategy="steps", save_steps=1)
    pushed = Mock(side_effect=error)
    monkeypatch.setattr("sensia_trainer.training.pushing._publish", pushed)
    trainer.args.push_to_hub, trainer.hub_model_id = True, "owner/live"
    monkeypatch.setattr(trainer, "push_to_hub", lambda *_, **__: None)
    trainer.train()
    assert trainer.state.global_step == 2 and pushed.call_count == 2


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_whole_checkpoints_are_not_pushed(tmp_path, strategy):
    with pytest.raises(ValueError, match=f"`hub_strategy` is '{strategy}'.*pickles.*every_save"):
        tiny_trainer(tmp_path, push_to_hub=True, hub_model_id="owner/x", hub_strategy=strategy)
