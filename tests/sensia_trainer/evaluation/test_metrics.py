import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sensia_trainer.evaluation.metrics import (
    METRICS,
    BitextRetrieval,
    ChoiceAccuracy,
    TokenPerplexity,
    write_metric_space,
)
from sensia_trainer.evaluation.retrieval import retrieval_metrics


def test_bitext_retrieval():
    vectors = torch.nn.functional.normalize(torch.randn(2, 20, 8), dim=-1)
    result = BitextRetrieval().compute(predictions=vectors[0].tolist(), references=vectors[1].tolist(), bootstrap=20)
    expected = retrieval_metrics(*vectors, bootstrap=20)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value), name


def test_choice_accuracy_in_two_batches():
    metric = ChoiceAccuracy()
    metric.add_batch(predictions=[[-1.0, -2.0], [-3.0, -1.0]], references=[0, 0])
    metric.add_batch(predictions=[[-1.0, -1.0]], references=[0])
    result = metric.compute()
    assert (result["correct"], result["total"], result["ties"]) == (2, 3, 1)


def test_token_perplexity():
    result = TokenPerplexity().compute(predictions=[2.0, 4.0], references=["aé b", "c"], tokens=4)
    assert result["perplexity"] == pytest.approx(math.exp(1.5))
    assert result["nll_per_byte"] == pytest.approx(1.0)  # 5 bytes and 1 byte
    assert result["perplexity_per_word"] == pytest.approx(math.exp(2.0))


ALONE = """
import json, sys
sys.modules["sensia_trainer"] = None  # whoever loads a pushed metric need not have this package
import evaluate
inputs = json.loads(sys.argv[1])
print(json.dumps({folder: evaluate.load(folder).compute(**values) for folder, values in inputs.items()}))
"""


def test_written_folders_load_offline_and_without_this_package(tmp_path):
    vectors = torch.nn.functional.normalize(torch.randn(2, 6, 4), dim=-1).tolist()
    inputs = {
        "bitext_retrieval": {"predictions": vectors[0], "references": vectors[1], "bootstrap": 20},
        "choice_accuracy": {"predictions": np.eye(2).tolist(), "references": [0, 0]},
        "token_perplexity": {"predictions": [2.0, 4.0], "references": ["aé b", "c"], "tokens": 4},
    }
    assert inputs.keys() == METRICS.keys()
    folders = {str(write_metric_space(name, tmp_path)): values for name, values in inputs.items()}
    run = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(folders)], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    for folder, result in json.loads(run.stdout).items():
        expected = METRICS[Path(folder).name]().compute(**folders[folder])
        assert result.keys() == expected.keys()
        for key, value in expected.items():
            assert result[key] == pytest.approx(value), (folder, key)
        assert {file.name for file in Path(folder).iterdir()} >= {"README.md", "requirements.txt", "index.html"}
    torch_is_needed = {Path(f).name: "torch" in (Path(f) / "requirements.txt").read_text().split() for f in folders}
    assert torch_is_needed == {"bitext_retrieval": True, "choice_accuracy": False, "token_perplexity": False}


def test_unknown_metric(tmp_path):
    with pytest.raises(ValueError, match="no metric 'bleu'; there are .*choice_accuracy"):
        write_metric_space("bleu", tmp_path)
