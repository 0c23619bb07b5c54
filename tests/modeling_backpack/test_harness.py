"""lm-evaluation-harness runs on a saved folder, by its own command line, on a task defined here."""

import json
import sys

import pytest
import torch

from tests.modeling_backpack.tiny import spread


TASK = """
task: sense
dataset_path: json
dataset_kwargs: {data_files: {test: "DATA"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ITEMS = [
    {"context": "The cat sleeps on", "choices": ["the chair.", "the river."], "label": 0},
    {"context": "The river runs down to", "choices": ["the book.", "the sea."], "label": 1},
    {"context": "Where is", "choices": ["the nearest station?", "tomorrow"], "label": 0},
]


@torch.no_grad()
def log_likelihood(model, tokenizer, context, continuation):
    """Sum over the tokens of ` continuation` given `context`, every position written out."""
    context_ids = tokenizer(context)["input_ids"]
    ids = tokenizer(f"{context} {continuation}")["input_ids"]
    log_probs = model(torch.tensor([ids])).logits.log_softmax(-1)[0]
    return sum(log_probs[t - 1, ids[t]].item() for t in range(len(context_ids), len(ids)))


@pytest.mark.slow
def test_lm_eval_on_a_folder(tmp_path, monkeypatch, tokenizer, tiny_model):
    lm_eval = pytest.importorskip("lm_eval.__main__", reason="lm-eval is not installed")
    model, folder, tasks = spread(tiny_model()), tmp_path / "model", tmp_path / "tasks"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tasks.mkdir()
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    (tasks / "sense.yaml").write_text(TASK.replace("DATA", str(tmp_path / "items.jsonl")))
    command = ["lm_eval", "--model", "hf", "--tasks", "sense", "--include_path", str(tasks)]
    command += ["--model_args", f"pretrained={folder},trust_remote_code=True,dtype=float32", "--device", "cpu"]
    command += ["--batch_size", "2", "--output_path", str(tmp_path / "results"), "--log_samples"]
    monkeypatch.setattr(sys, "argv", command)
    lm_eval.cli_evaluate()
    samples = [json.loads(line) for line in next((tmp_path / "results").rglob("samples_sense_*.jsonl")).open()]
    assert len(samples) == len(ITEMS)
    correct = 0
    for sample in samples:
        item = sample["doc"]
        expected = [log_likelihood(model, tokenizer, item["context"], choice) for choice in item["choices"]]
        given = [float(response[0][0]) for response in sample["resps"]]
        assert given == pytest.approx(expected, abs=1e-3)
        correct += expected[item["label"]] == max(expected)
    results = json.loads(next((tmp_path / "results").rglob("results_*.json")).read_text())
    assert results["results"]["sense"]["acc,none"] == pytest.approx(correct / len(ITEMS))
