"""Sizes of Table 10 on the meta device, and Backpacks that start from a pretrained backbone."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from tests.modeling_backpack.tiny import BACKBONES, random_ids, spread


# Table 10 names backbones by 124, 345 and 762 million weights.
SIZES = {
    "small": (12, 768, 12, 124_051_968, 170_083_584),
    "medium": (24, 1024, 16, 354_306_048, 436_128_768),
    "large": (36, 1280, 20, 773_383_680, 901_221_120),
}


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts(size):
    layers, hidden, heads, backbone_count, count = SIZES[size]
    backbone = GPT2Config(vocab_size=50264, n_positions=512, n_layer=layers, n_embd=hidden, n_head=heads)
    with torch.device("meta"):
        model = BackpackForCausalLM(BackpackConfig(backbone_config=backbone))
    assert model.num_parameters() == count
    assert model.backpack.backbone.num_parameters() == backbone_count


@pytest.mark.parametrize("backbone", BACKBONES)
def test_from_backbone(tmp_path, backbone):
    torch.manual_seed(0)
    decoder = spread(AutoModelForCausalLM.from_config(BACKBONES[backbone]())).eval()
    decoder.save_pretrained(tmp_path)
    model = BackpackForCausalLM.from_backbone(tmp_path, num_senses=8, residual_gate=False).eval()
    input_ids = random_ids(2, 9)
    with torch.no_grad():
        outputs = model(input_ids, labels=input_ids)
        expected = decoder.base_model(input_ids).last_hidden_state
    torch.testing.assert_close(outputs.backbone_last_hidden_state, expected)
    assert model.config.num_senses == 8
    tied = decoder.config.tie_word_embeddings
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    assert torch.equal(model.lm_head.weight, decoder.get_output_embeddings().weight)
    # Fresh senses weigh little: their last MLP is at its initial size.
    std = model.backpack.sense_network.final_mlp.c_proj.weight.std().item()
    layers = model.config.num_hidden_layers
    assert std == pytest.approx(0.02 / (2 * layers) ** 0.5, rel=0.05)
    model.save_pretrained(tmp_path / "backpack")
    again = BackpackForCausalLM.from_pretrained(tmp_path / "backpack")
    torch.testing.assert_close(again(input_ids).logits, outputs.logits)
