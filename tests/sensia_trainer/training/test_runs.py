"""What a run leaves beside its weights holds no secrets and no folders of the machine."""

import json
import sys

from transformers import TrainerState

from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.runs import shown_command, write_run
from tests.tiny import tiny_model, tiny_tokenizer


TOKEN = "hf_" + "a1B2" * 9


def test_a_command_is_one_that_works_elsewhere():
    assert shown_command(["sensia", "adapt", "quickstart", "--seed", "2"]) == "sensia adapt quickstart --seed 2"
    assert shown_command(["/root/x/examples/adapt.py", "a.yaml"], 2) == "sensia adapt --num_processes 2 a.yaml"
    assert (
        shown_command(["/root/train.py", "--data", "/root/my data/a.tsv"]) == "python train.py --data 'my data/a.tsv'"
    )
    assert shown_command(["train.py"], 4) == "accelerate launch --num_processes 4 train.py"


def test_no_token_and_no_folder_reach_the_metrics(tmp_path, monkeypatch):
    command = ["sensia", "adapt", "quickstart", "--hub_token", TOKEN, f"--hub_token={TOKEN}", "--run_name", TOKEN]
    monkeypatch.setattr(sys, "argv", command)
    args = SensiaConfig(output_dir=str(tmp_path / "run"), target_language="id", use_cpu=True, hub_token=TOKEN)
    data = {"name": f"{tmp_path}/pairs.tsv", "sources": [f"{tmp_path}/pairs.tsv"]}
    write_run(args, kind="adaptation", model=tiny_model(tiny_tokenizer()), state=TrainerState(), data=data)
    text = (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")
    assert TOKEN not in text and str(tmp_path) not in text
    metrics = json.loads(text)
    assert metrics["command"] == (
        "sensia adapt quickstart --hub_token <redacted> --hub_token=<redacted> --run_name <redacted>"
    )
    assert metrics["data"] == {"name": "pairs.tsv", "sources": ["pairs.tsv"]}
