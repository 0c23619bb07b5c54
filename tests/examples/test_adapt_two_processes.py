"""`torchrun --nproc_per_node 2 examples/adapt.py` on a tiny recipe, from bitext file to model folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.distributed import free_port
from tests.tiny import tiny_bitext, tiny_model, tiny_tokenizer


pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_adapt_on_two_processes(tmp_path):
    tokenizer = tiny_tokenizer()
    for part in (tokenizer, tiny_model(tokenizer)):
        part.save_pretrained(tmp_path / "base")
    lines = ["en\tid", *(f"{pair['en']}\t{pair['id']}" for pair in tiny_bitext(120)["translation"])]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {
        "model": str(tmp_path / "base"),
        "bitext": str(tmp_path / "pairs.tsv"),
        "target_language": "id",
        "held_out_pairs": 9,
        "output_dir": str(tmp_path / "out"),
        "max_steps": 8,
        "vocabulary_size": 12,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 4,
        "use_cpu": True,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    root = Path(__file__).parents[2]
    command = [sys.executable, *torchrun, str(root / "examples" / "adapt.py"), str(tmp_path / "recipe.yaml")]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("model folder:") == 1  # one process speaks
    assert result.stderr.count("which teach little about the meanings of words") == 1  # and one learns the new words

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["processes"] == 2
    assert metrics["config"]["steps"] == 8
    assert metrics["before"]["pairs"] == metrics["after"]["pairs"] == 9
    assert [row["step"] for row in metrics["history"] if "eval_pairs" in row][:2] == [4, 8]
    assert metrics["vocabulary"]["new_tokens"] == 12
    rows = load_file(tmp_path / "out" / "model.safetensors")["backpack.backbone.wte.weight"]
    assert len(rows) == metrics["vocabulary"]["first_token"] + 12
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
