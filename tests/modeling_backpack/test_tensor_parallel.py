"""Tensor parallelism: the backbone's plan, the head with its embeddings, the sense network; two processes are one."""

import pytest
import torch
from transformers.distributed.configuration_utils import DistributedConfig

from modeling_backpack import BackpackForCausalLM
from tests.distributed import run_on_processes
from tests.modeling_backpack.tiny import random_ids, tiny_backpack


SENSE_NETWORK = {
    f"backpack.sense_network.{name}": style
    for name, style in {
        "block.mlp.c_fc": "colwise",
        "block.mlp.c_proj": "rowwise",
        "final_mlp.c_fc": "colwise",
        "final_mlp.c_proj": "rowwise",
    }.items()
}


@pytest.mark.parametrize("backbone", ["gpt2", "llama", "qwen3"])
def test_plan(backbone):
    model = tiny_backpack(backbone)
    plan = dict(model.tp_plan)
    assert SENSE_NETWORK.items() <= plan.items()
    rest = plan.keys() - SENSE_NETWORK.keys()
    if backbone == "gpt2":  # the library has no plan for it
        assert not rest
    else:
        assert plan["backpack.backbone.embed_tokens"] == "embedding_rowwise"
        assert plan["lm_head"] == "colwise_gather_output"
        assert plan["backpack.backbone.layers.*.self_attn.q_proj"] == "colwise"
    assert "lm_head" not in tiny_backpack("gpt2").tp_plan, "a plan of one model must not become another's"


def sharded(folder, input_ids):
    """Logits, loss, new tokens and one gradient of the model that both processes hold together."""
    config = DistributedConfig(tp_size=2, tp_plan="auto")
    model = BackpackForCausalLM.from_pretrained(folder, distributed_config=config).eval()
    weight = model.backpack.sense_network.final_mlp.c_fc.weight
    outputs = model(input_ids, labels=input_ids, use_cache=False)
    outputs.loss.backward()
    with torch.no_grad():
        new = model.generate(input_ids, max_new_tokens=5, do_sample=False, eos_token_id=-1)
    return {
        "local_rows": weight.to_local().shape[0],
        "loss": outputs.loss.item(),
        "logits": outputs.logits.detach(),
        "new": new,
        "gradient": weight.grad.full_tensor(),
    }


@pytest.mark.distributed
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_two_processes_are_one(tmp_path, backbone):
    model, input_ids = tiny_backpack(backbone), random_ids(2, 7)
    model.save_pretrained(tmp_path)
    outputs = model(input_ids, labels=input_ids)
    outputs.loss.backward()
    weight = model.backpack.sense_network.final_mlp.c_fc.weight
    new = model.generate(input_ids, max_new_tokens=5, do_sample=False, eos_token_id=-1)
    for result in run_on_processes(sharded, str(tmp_path), input_ids):
        assert result["local_rows"] == weight.shape[0] // 2
        torch.testing.assert_close(result["logits"], outputs.logits.detach(), rtol=0, atol=1e-5)
        assert result["loss"] == pytest.approx(outputs.loss.item(), abs=1e-5)
        torch.testing.assert_close(result["gradient"], weight.grad, rtol=1e-4, atol=1e-6)
        assert torch.equal(result["new"], new)
