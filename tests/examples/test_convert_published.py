"""examples/convert_published.py on a small file of the published layout."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from modeling_backpack import BackpackForCausalLM
from tests.conftest import SENTENCES
from tests.modeling_backpack.test_published import write
from tests.modeling_backpack.tiny import random_ids, tiny_published


SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "convert_published.py"


@pytest.mark.parametrize("with_text", [False, True])
def test_conversion(tmp_path, monkeypatch, capsys, tokenizer, with_text):
    state = tiny_published(vocab_size=len(tokenizer)).state_dict()
    write(tmp_path / "published", state, "bin", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES))
    argv = ["convert_published.py", str(tmp_path / "published"), str(tmp_path / "ours")]
    if with_text:
        argv += ["--tokenizer", str(tmp_path / "tokenizer"), "--text", str(tmp_path / "text.txt")]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert "4 senses, scale 1" in printed
    assert ("without" in printed) == (tmp_path / "ours" / "tokenizer.json").exists() == with_text
    model = BackpackForCausalLM.from_pretrained(tmp_path / "ours")
    scaling = model.config.backbone_config.scale_attn_by_inverse_layer_idx
    assert f"inverse-layer scaling {'on' if scaling else 'off'}" in printed
    published = BackpackForCausalLM.from_pretrained(
        tmp_path / "published", scale_attn_by_inverse_layer_idx=scaling if with_text else None
    )
    with torch.no_grad():
        torch.testing.assert_close(model(random_ids(1, 9)).logits, published(random_ids(1, 9)).logits)
