"""Trainers and adapters of other libraries on a Backpack: transformers' Trainer and its options, TRL, PEFT."""

import json

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithFlattening,
    GPT2Config,
    Trainer,
    TrainingArguments,
)

from modeling_backpack import BackpackConfig, BackpackForCausalLM, BackpackForSequenceClassification
from modeling_backpack.modeling_backpack import CACHE_NAME
from tests.modeling_backpack.tiny import VOCAB_SIZE, random_ids, spread, tiny_backpack


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


def test_label_smoothing_of_a_plain_trainer(tmp_path):
    """`Trainer` shifts the labels of the causal models it knows by name."""
    rows = random_ids(4, 12)
    arguments = TrainingArguments(tmp_path, label_smoothing_factor=0.1, use_cpu=True, report_to="none")
    model = tiny_backpack()
    trainer = Trainer(model, arguments)
    loss = trainer.compute_loss(model, {"input_ids": rows, "labels": rows.clone()})
    logits = model(rows).logits
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)


def test_noisy_embeddings(tmp_path):
    """NEFTune hooks the embeddings, of which the senses are computed too."""
    rows = random_ids(4, 12).tolist()
    data = Dataset.from_dict({"input_ids": rows, "labels": rows})
    arguments = TrainingArguments(
        tmp_path, max_steps=1, neftune_noise_alpha=5, use_cpu=True, report_to="none", disable_tqdm=True
    )
    assert Trainer(tiny_backpack(), arguments, train_dataset=data).train().training_loss > 0


@pytest.mark.parametrize("residual_gate", [False, True])
def test_sequence_classification(tmp_path, residual_gate):
    config = tiny_backpack("llama", residual_gate=residual_gate).config
    config.num_labels = 3
    torch.manual_seed(0)
    model = spread(AutoModelForSequenceClassification.from_config(config)).eval()
    assert isinstance(model, BackpackForSequenceClassification)
    texts = [random_ids(length, seed=length) for length in (3, 9)]
    batch = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)  # the padding token is 0
    logits = model(batch, (batch != 0).long()).logits
    for row, text in enumerate(texts):
        state = model.backpack(text[None]).last_hidden_state[0, -1]
        torch.testing.assert_close(logits[row], model.score(state), rtol=0, atol=1e-5)
    model(batch, labels=torch.tensor([2, 0])).loss.backward()
    assert model.score.weight.grad.any()
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(batch).logits, model(batch).logits)


def test_a_classifier_takes_the_padding_token_that_is_given_last(tmp_path):
    torch.manual_seed(0)
    config = BackpackConfig(backbone_config=GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=97), num_senses=4)
    model = spread(BackpackForSequenceClassification(config)).eval()
    row, padded = torch.tensor([[3, 4]]), torch.tensor([[3, 4, 60], [5, 6, 7]])
    expected = model(row).logits[0]
    with pytest.raises(ValueError, match="no padding token"):
        model(padded)
    model.config.pad_token_id = 60  # as for a GPT-2
    torch.testing.assert_close(model(padded).logits[0], expected)
    model.config.get_text_config().pad_token_id = 7  # as trainers do
    torch.testing.assert_close(model(padded.masked_fill(padded == 60, 7)).logits[0], expected)
    model.save_pretrained(tmp_path)
    for given, padding in (({}, 7), ({"pad_token_id": 0}, 0)):
        again = BackpackForSequenceClassification.from_pretrained(tmp_path, **given)
        assert again.config.pad_token_id == again.config.get_text_config().pad_token_id == padding
        torch.testing.assert_close(again(padded.masked_fill(padded == 60, padding)).logits[0], expected)
    names = Trainer(model, TrainingArguments(tmp_path, use_cpu=True, report_to="none"))
    names._set_signature_columns_if_needed()
    assert {"input_ids", "attention_mask", "labels"} <= set(names._signature_columns)


@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_padding_free_rows_longer_than_the_model(backbone):
    """Texts flattened to one row, whose positions start again with each."""
    model = tiny_backpack(backbone)
    texts = [random_ids(length, seed=length) for length in (40, 30, 35)]
    batch = DataCollatorWithFlattening(return_tensors="pt")([{"input_ids": text.tolist()} for text in texts])
    assert batch["input_ids"].shape[1] > model.config.max_position_embeddings
    with torch.no_grad():
        logits = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        alone = torch.cat([model(text[None]).logits[0] for text in texts])
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)
    if backbone == "gpt2":  # as one text they are too long for positions that are learned
        with pytest.raises(ValueError, match="105 positions"):
            model(batch["input_ids"], use_cache=False)


def test_trl_packing(tmp_path, tokenizer, tiny_model):
    trl = pytest.importorskip("trl", reason="trl is not installed")
    texts = ["The cat sleeps on the chair.", "Di mana stasiun terdekat?", "The river runs down."] * 8
    arguments = trl.SFTConfig(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        max_length=48,
        packing=True,
        padding_free=True,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"text": texts})
    trainer = trl.SFTTrainer(model=tiny_model(), args=arguments, train_dataset=data, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[1] > trainer.model.config.max_position_embeddings
    assert 0 < trainer.train().training_loss < 10


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


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig", "PrefixTuningConfig"])
@pytest.mark.parametrize("residual_gate", [False, True])
def test_prompt_learning(kind, residual_gate):
    """Virtual tokens before the text, by embeddings or by keys and values; sizes are found in the configuration."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, input_ids = tiny_backpack("llama", residual_gate=residual_gate), random_ids(2, 6)
    base = model(input_ids).logits
    adapted = peft.get_peft_model(model, getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    outputs = adapted(input_ids, labels=input_ids)
    outputs.loss.backward()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert trained and all(parameter.grad.any() for parameter in trained)
    assert (outputs.logits[:, -6:] - base).abs().max() > 1e-3
    changed = input_ids.clone()
    changed[:, -1] += 1
    assert torch.equal(adapted(changed).logits[:, :-1], outputs.logits[:, :-1])
    if CACHE_NAME == "cache":
        return  # PEFT 0.21 does not know the new name when it generates, whatever the model
    new = adapted.generate(input_ids=input_ids, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    text = input_ids
    for _ in range(4):
        text = torch.cat([text, adapted(text).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(new[:, -4:], text[:, -4:])


def test_lora_on_a_language_model_with_senses(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, input_ids = tiny_backpack("llama", residual_gate=True, tie_word_embeddings=False), random_ids(2, 6)
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "c_attn"], modules_to_save=["residual_gate"]
    )
    adapted = peft.get_peft_model(model, config)
    adapted(input_ids, labels=input_ids).loss.backward()
    gates = [parameter for name, parameter in adapted.named_parameters() if "modules_to_save" in name]
    assert len(gates) == 1 and gates[0].grad.any()
    with torch.no_grad():
        gates[0].fill_(0.7)
    adapted.save_pretrained(tmp_path / "adapter")
    fresh = BackpackForCausalLM.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    merged = loaded.merge_and_unload()
    assert merged.backpack.residual_gate.weight.item() == pytest.approx(0.7)
    torch.testing.assert_close(merged(input_ids).logits, adapted.eval()(input_ids).logits)
