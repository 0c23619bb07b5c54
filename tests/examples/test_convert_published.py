"""`sensia convert` on a small file of the published layout."""

import pytest
import torch

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.cli import main
from tests.conftest import SENTENCES
from tests.modeling_backpack.test_published import write
from tests.modeling_backpack.tiny import random_ids, tiny_published


@pytest.mark.parametrize("with_text", [False, True])
def test_conversion(tmp_path, capsys, tokenizer, with_text):
    state = tiny_published(vocab_size=len(tokenizer)).state_dict()
    write(tmp_path / "published", state, "bin", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES))
    argv = ["convert", str(tmp_path / "published"), str(tmp_path / "ours")]
    if with_text:
        argv += ["--tokenizer", str(tmp_path / "tokenizer"), "--text", str(tmp_path / "text.txt")]
    assert main(argv) == 0
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
