"""What a configuration holds, keeps, derives and refuses."""

import json

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from tests.modeling_backpack.tiny import BACKBONES, GPT2, random_ids


def test_default_is_the_published_small_model():
    backbone = BackpackConfig().backbone_config
    assert (backbone.vocab_size, backbone.n_positions, backbone.n_layer, backbone.n_embd) == (50264, 512, 12, 768)
    assert backbone.scale_attn_by_inverse_layer_idx is True


@pytest.mark.parametrize("backbone", BACKBONES)
def test_round_trip(tmp_path, backbone):
    config = BackpackConfig(backbone_config=BACKBONES[backbone](), num_senses=3, sense_scale=0.5)
    config.save_pretrained(tmp_path)
    again = BackpackConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert type(again.backbone_config) is type(config.backbone_config)
    assert (again.hidden_size, again.num_senses, again.sense_scale) == (32, 3, 0.5)
    heads = {"AutoModelForCausalLM", "AutoModelForSequenceClassification"}
    assert again.auto_map.keys() == {"AutoConfig", "AutoModel", *heads}
    assert "text_config" not in json.loads((tmp_path / "config.json").read_text())
    assert BackpackConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_backbone_by_dict():
    config = BackpackConfig(backbone_config={"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1})
    assert isinstance(config.backbone_config, LlamaConfig) and config.hidden_size == 64
    assert isinstance(BackpackConfig(backbone_config={"n_embd": 96}).backbone_config, GPT2Config)


def test_token_ids_are_the_backbones():
    config = BackpackConfig(backbone_config=GPT2Config(bos_token_id=3, eos_token_id=4, pad_token_id=5))
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (3, 4, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixture_mode": "mean"}, "`mixture_mode` must be one of .*'full', 'top_k', 'uniform'.*got 'mean'"),
        ({"num_senses": 0}, "`num_senses` must lie between 1 and the backbone's hidden size"),
        ({"sense_intermediate_scale": 0}, "`sense_intermediate_scale` must be 1 or more, got 0"),
        ({"hidden_act": "nosuch"}, "`hidden_act` must be one of .*'gelu_new'.* got 'nosuch'"),
        ({"num_senses": 33}, "`num_senses` must lie between 1 .* \\(32\\).* got 33"),
        ({"mixture_top_k": 17}, "`mixture_top_k` must lie between 1 and `num_senses` \\(16\\), got 17"),
        ({"sense_scale": 0}, "`sense_scale` must be positive"),
        ({"num_sense": 4}, "unknown field.*'num_sense'"),
        ({"n_embd": 64}, "backbone field.*'n_embd'.*pass them inside `backbone_config`"),
        ({"vocab_size": 64, "num_hidden_layers": 2}, "'num_hidden_layers', 'vocab_size'"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        BackpackConfig(backbone_config=BACKBONES["gpt2"](), **fields)


def test_bad_fields_of_a_file(tmp_path):
    config = BackpackConfig(backbone_config=BACKBONES["gpt2"]()).to_dict()
    with pytest.raises(ValueError, match="backbone field.*'n_layer'"):
        BackpackConfig.from_dict(config | {"n_layer": 2})


def test_unknown_fields_of_a_file_are_kept(caplog):
    """A later release may have written them; misspelt arguments are another matter, above."""
    written = BackpackConfig(backbone_config=BACKBONES["gpt2"](), num_senses=3).to_dict() | {"from_the_future": 1}
    config = BackpackConfig.from_dict(written)
    assert (config.num_senses, config.from_the_future) == (3, 1)
    assert config.to_dict()["from_the_future"] == 1


def test_flat_and_nested_fields_of_a_published_file():
    with pytest.raises(ValueError, match="backbone field.*'n_embd'.*pass them inside `backbone_config`"):
        BackpackConfig.from_dict({"model_type": "gpt2", "num_senses": 4, "n_embd": 32, "backbone_config": {}})


def test_sizes_are_written_to_the_backbone():
    config = BackpackConfig(backbone_config=BACKBONES["llama"]())
    config.vocab_size, config.max_position_embeddings = 50, 60
    assert (config.backbone_config.vocab_size, config.backbone_config.max_position_embeddings) == (50, 60)


def test_senses_need_not_divide_the_hidden_size():
    assert BackpackConfig(backbone_config=BACKBONES["gpt2"](), num_senses=5).num_senses == 5


def test_the_precision_of_a_checkpoint_is_not_that_of_a_new_model():
    backbone = GPT2Config(**GPT2, dtype="bfloat16")
    model = BackpackForCausalLM(BackpackConfig(backbone_config=backbone, num_senses=4))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.isfinite(model(random_ids(1, 5)).logits).all()
