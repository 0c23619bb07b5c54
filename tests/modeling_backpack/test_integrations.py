"""Trainers and adapters of other libraries on a Backpack: transformers' Trainer, TRL, PEFT."""

import json

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from modeling_backpack import BackpackForCausalLM
from tests.modeling_backpack.tiny import VOCAB_SIZE, random_ids, tiny_backpack


ADAPTED = {
    "backbone": r".*backbone.*\.(c_attn|c_fc)",
    "sense network": ["final_mlp.c_fc", "final_mlp.c_proj"],
    "both": "all-linear",
}


def test_trainer_step(tmp_path):
    rows = random_ids(8, 12).tolist()
    dataset = Dataset.from_dict({"input_ids": rows, "labels": rows})
    model = tiny_backpack().train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    arguments = TrainingArguments(
        tmp_path, max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, disable_tqdm=True
    )
    shapes = []
    trainer = Trainer(
        model,
        arguments,
        train_dataset=dataset,
        eval_dataset=dataset,
        compute_metrics=lambda prediction: shapes.append(prediction.predictions.shape) or {},
    )
    loss = trainer.evaluate()["eval_loss"]
    assert shapes == [(8, 12, VOCAB_SIZE)]  # the logits, and nothing else that the model returns
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < loss
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    trainer.save_model()
    again = BackpackForCausalLM.from_pretrained(tmp_path)
    input_ids = random_ids(1, 5)
    assert torch.equal(again(input_ids).logits, model.eval()(input_ids).logits)
    assert "backbone_config" in json.loads((tmp_path / "config.json").read_text())


def test_trl_sft_step(tmp_path, tokenizer, tiny_model):
    trl = pytest.importorskip("trl", reason="trl is not installed")
    texts = ["The cat sleeps on the chair.", "Di mana stasiun terdekat?", "The river runs down."] * 2
    arguments = trl.SFTConfig(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        max_length=32,
        learning_rate=1e-2,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
    )
    model = tiny_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = trl.SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict({"text": texts}), processing_class=tokenizer
    )
    result = trainer.train()
    assert 0 < result.training_loss < 10
    for name, parameter in trainer.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("part", ADAPTED)
def test_lora(tmp_path, part):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, input_ids = tiny_backpack(), random_ids(2, 7)
    model.save_pretrained(tmp_path / "base")
    base = model(input_ids).logits
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=ADAPTED[part], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    adapters = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert adapters and all("lora_" in name for name in adapters)
    assert any("sense_network" in name for name in adapters) == (part != "backbone")
    assert any("backbone" in name for name in adapters) == (part != "sense network")
    logits = adapted(input_ids).logits
    assert (logits - base).abs().max() > 1e-3
    adapted(input_ids, labels=input_ids).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapted.parameters() if parameter.requires_grad)
    assert adapted.generate(input_ids, max_new_tokens=3, do_sample=False, eos_token_id=-1).shape == (2, 10)

    adapted.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    fresh = BackpackForCausalLM.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(input_ids).logits, logits)
    merged = loaded.merge_and_unload()
    assert isinstance(merged, BackpackForCausalLM)
    torch.testing.assert_close(merged(input_ids).logits, logits, rtol=0, atol=1e-4)
    assert merged.lm_head.weight is merged.get_input_embeddings().weight
    merged.save_pretrained(tmp_path / "merged")
    again = BackpackForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(again(input_ids).logits, merged(input_ids).logits)
