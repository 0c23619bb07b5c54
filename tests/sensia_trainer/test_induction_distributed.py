"""An induction on two processes, replicated or sharded, is the induction on one: losses, metrics, and the gate that is
opened in the end."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sensia_trainer.utils.recipes import RECIPES
from tests.distributed import allow_fsdp_on_cpu, run_on_processes
from tests.sensia_trainer.test_induction import trainer_for


pytestmark = pytest.mark.distributed


def induce(folder, blocks, **fields):
    """With `blocks` blocks on this process."""
    sizes = {"per_device_train_batch_size": blocks, "per_device_eval_batch_size": 2, "max_steps": 40}
    sizes["diversity_weight"] = 0.0  # of the distinct words that a process sees, which are others than those of all
    trainer = trainer_for(folder, **sizes, **fields)
    trainer.train()
    trained = trainer.open_gate()
    logged = [{name: row[name] for name in ("loss", "gate")} for row in trainer.state.log_history if "loss" in row]
    after = {name: value for name, value in trainer.evaluate().items() if value is not None}  # no tokenizer: no words
    trainer.save_model(folder)
    return {"logged": logged, "trained_gate": trained, "after": after}


def induce_sharded(folder, blocks):
    allow_fsdp_on_cpu()
    config = yaml.safe_load((RECIPES / "accelerate" / "several_nodes_fsdp.yaml").read_text())["fsdp_config"]
    return induce(folder, blocks, fsdp=True, fsdp_config=config)


@pytest.mark.parametrize("function", [induce, induce_sharded])
def test_two_processes_equal_one(tmp_path, function):
    expected = induce(str(tmp_path / "one"), 4)
    assert abs(expected["after"]["eval_gate"]) > abs(expected["trained_gate"]) > 0
    for rank in run_on_processes(function, str(tmp_path / "two"), 2):
        assert rank["trained_gate"] == pytest.approx(expected["trained_gate"], rel=1e-4)
        assert rank["after"] == pytest.approx(expected["after"], rel=2e-3)
        for row, expected_row in zip(rank["logged"], expected["logged"], strict=True):
            assert row == pytest.approx(expected_row, rel=1e-4, abs=1e-6)
    weights, expected_weights = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert weights.keys() == expected_weights.keys()
    for name, weight in expected_weights.items():
        if name.endswith("c_attn.bias"):  # the keys' moves no softmax: its gradient is rounding, which Adam enlarges
            continue
        tolerance = 2e-3 if "residual_gate" in name else 1e-5
        torch.testing.assert_close(weights[name], weight, rtol=tolerance, atol=1e-5, msg=name)
