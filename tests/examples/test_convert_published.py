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


def test_the_tokenizer_of_the_checkpoint_goes_along(tmp_path, capsys, tokenizer):
    state = tiny_published(vocab_size=len(tokenizer)).state_dict()
    write(tmp_path / "published", state, "bin", vocab_size=len(tokenizer))
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES))
    for name in ("without", "with"):
        decided = ["--text", str(tmp_path / "text.txt")]
        assert main(["convert", str(tmp_path / "published"), str(tmp_path / f"{name}-text"), *decided]) == (
            2 if name == "without" else 0
        )
        capsys.readouterr()
        assert main(["convert", str(tmp_path / "published"), str(tmp_path / name)]) == 0
        assert ("has no tokenizer" in capsys.readouterr().out) == (name == "without")
        assert (tmp_path / name / "tokenizer.json").exists() == (name == "with")
        tokenizer.save_pretrained(tmp_path / "published")


def test_an_adapter_becomes_a_model_that_loads_by_itself(tmp_path, tiny_model, tokenizer):
    peft = pytest.importorskip("peft")
    tiny_model().save_pretrained(tmp_path / "base")
    base = BackpackForCausalLM.from_pretrained(tmp_path / "base")
    updated = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    with torch.no_grad():
        for name, parameter in updated.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    updated.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = updated.eval()(random_ids(1, 9)).logits
    assert main(["convert", str(tmp_path / "adapter"), str(tmp_path / "whole")]) == 0
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with torch.no_grad():
        got = BackpackForCausalLM.from_pretrained(tmp_path / "whole").eval()(random_ids(1, 9)).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_what_cannot_be_converted_is_told_before_anything_is_written(tmp_path, capsys, tokenizer):
    state = tiny_published(vocab_size=len(tokenizer)).state_dict()
    write(tmp_path / "published", state, "bin", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    argv = ["convert", *(str(tmp_path / name) for name in ("published", "ours")), "--tokenizer"]
    argv += [str(tmp_path / "tokenizer")]
    for content, message in ((b"", "no two tokens"), (b"a", "no two tokens"), (b"caf\xe9 noir", "not in UTF-8")):
        (tmp_path / "text.txt").write_bytes(content)
        assert main([*argv, "--text", str(tmp_path / "text.txt")]) != 0
        assert message in capsys.readouterr().err and not (tmp_path / "ours").exists()
    assert main(argv) == 0
    assert main(argv) != 0 and "exists already: name a new folder" in capsys.readouterr().err
