"""The one loader: whole models in float32, whatever their layout, and tokenizers that make tokens of text."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, GPT2LMHeadModel, PreTrainedTokenizerFast

from modeling_backpack import BackpackForCausalLM, is_published_layout
from sensia_trainer.utils.models import load_model, load_tokenizer
from tests.modeling_backpack.test_published import write
from tests.modeling_backpack.tiny import BACKBONES, GPT2, SIZES, random_ids, tiny_backpack, tiny_published


def test_a_published_backpack_is_not_a_gpt2(tmp_path):
    published = tiny_published()
    write(tmp_path, published.state_dict(), "safetensors")
    assert is_published_layout(tmp_path)
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), GPT2LMHeadModel), "what this is here to prevent"
    model, input_ids = load_model(str(tmp_path)), random_ids(1, 6)
    assert isinstance(model, BackpackForCausalLM)
    torch.testing.assert_close(model(input_ids).logits, published(input_ids), rtol=0, atol=1e-5)


def test_backpacks_and_other_models_come_in_float32(tmp_path):
    tiny_backpack(dtype=torch.float16).save_pretrained(tmp_path / "backpack")
    AutoModelForCausalLM.from_config(BACKBONES["llama"]()).half().save_pretrained(tmp_path / "llama")
    for name, expected in (("backpack", "BackpackForCausalLM"), ("llama", "LlamaForCausalLM")):
        model = load_model(tmp_path / name)
        assert type(model).__name__ == expected and model.dtype == torch.float32 and not model.training
        assert load_model(tmp_path / name, dtype=torch.bfloat16).dtype == torch.bfloat16
        assert not is_published_layout(tmp_path / name)


def test_missing_unexpected_and_misshapen_weights_are_named(tmp_path):
    for name, model in {
        "backpack": tiny_backpack(),
        "llama": AutoModelForCausalLM.from_config(BACKBONES["llama"]()),
    }.items():
        state = {
            key: tensor for key, tensor in model.state_dict().items() if "layers.0" not in key and "h.0" not in key
        }
        model.save_pretrained(tmp_path / name, state_dict=state)
        with pytest.raises(
            ValueError, match=r"do not fill a \w+ForCausalLM \(\d+ missing keys: .*\.0\..*whole checkpoint"
        ):
            load_model(tmp_path / name)
    model = tiny_backpack()
    model.save_pretrained(tmp_path / "more", state_dict=model.state_dict() | {"backpack.extra": torch.zeros(1)})
    with pytest.raises(ValueError, match="1 unexpected keys: backpack.extra"):
        load_model(tmp_path / "more")
    model.config.backbone_config.vocab_size = 98
    model.config.save_pretrained(tmp_path / "more")
    with pytest.raises(ValueError, match=r"mismatched keys: .*wte.*\[97, 32\].*\[98, 32\]"):
        load_model(tmp_path / "more")


@pytest.mark.parametrize("name", ["transformer.h.0.attn.masked_bias", "transformer.h.0.attn.attention.bias"])
def test_masks_that_old_releases_saved_are_no_weights(tmp_path, name):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **SIZES | GPT2))
    model.save_pretrained(tmp_path, state_dict=model.state_dict() | {name: torch.ones(1)})
    loaded, made = load_model(tmp_path), BackpackForCausalLM.from_backbone(tmp_path, num_senses=4)
    assert torch.equal(loaded.transformer.wte.weight, model.transformer.wte.weight)
    assert torch.equal(made.get_input_embeddings().weight, model.transformer.wte.weight)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises((OSError, ValueError), match="config.json|Unrecognized model"):
        load_model(tmp_path)


def test_a_delta_is_no_model(tmp_path):
    (tmp_path / "delta.json").write_text("{}")
    with pytest.raises(ValueError, match="is a delta, .*: put them together by `sensia delta DELTA BASE MODEL`"):
        load_model(tmp_path)


def test_a_tokenizer_of_far_fewer_tokens_is_told(tmp_path, tokenizer, tiny_model, caplog, monkeypatch):
    monkeypatch.setattr("sensia_trainer.utils.models.logger.propagate", True)
    tokenizer.save_pretrained(tmp_path)
    model = tiny_model()
    model.resize_token_embeddings(300 + 1024)  # padded
    load_tokenizer(tmp_path, model)
    assert "has embeddings of" not in caplog.text
    model.resize_token_embeddings(300 + 1025)
    load_tokenizer(tmp_path, model)
    assert "has embeddings of 1,325 tokens, but the tokenizer of" in caplog.text and "knows 300" in caplog.text


def test_tokenizers(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "good")
    assert load_tokenizer(tmp_path / "good").get_vocab() == tokenizer.get_vocab()
    with pytest.raises(ValueError, match="has 300 tokens, but the model has embeddings of 97"):
        load_tokenizer(tmp_path / "good", tiny_backpack())
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    empty.save_pretrained(tmp_path / "empty")
    with pytest.raises(ValueError, match="gives no tokens for every text"):
        load_tokenizer(tmp_path / "empty")
    unknown = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=unknown, unk_token="[UNK]").save_pretrained(tmp_path / "unknown")
    with pytest.raises(ValueError, match="gives unknown tokens alone for every text"):
        load_tokenizer(tmp_path / "unknown")


def test_a_published_folder_has_no_tokenizer(tmp_path):
    write(tmp_path, tiny_published().state_dict(), "safetensors")
    with pytest.raises(
        ValueError, match="no tokens for every text|unknown tokens alone|no tokenizer that can be loaded"
    ):
        load_tokenizer(tmp_path)
