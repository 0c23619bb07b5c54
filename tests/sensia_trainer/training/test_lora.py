"""Low-rank updates go through the phases as full training does, resume exactly, and merge into a Backpack."""

import pytest
import torch
from safetensors.torch import load_file

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.training.callbacks import freeze_senses
from sensia_trainer.training.lora import SENSE_MODULES, LoraSettings, add_lora, is_lora, merge_lora
from tests.tiny import tiny_model, tiny_tokenizer, tiny_trainer, without_intervals


pytest.importorskip("peft", reason="peft is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")

IDS = torch.arange(12).view(2, 6)


class LoraTrainer(SensiaTrainer):
    """Adapts low-rank updates of the model it is given."""

    senses = "full"

    def __init__(self, model, args, **kwargs):
        settings = LoraSettings(use_peft=True, lora_r=2, lora_dropout=0.1, lora_senses=self.senses)
        super().__init__(add_lora(model, settings), args, **kwargs)


class LoraSensesTrainer(LoraTrainer):
    senses = "lora"


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def is_of_senses(name):
    return any(module in name for module in SENSE_MODULES)


@pytest.mark.parametrize("senses", ["full", "lora"])
def test_what_is_trained_and_what_it_starts_from(senses):
    model = tiny_model(tiny_tokenizer()).eval()
    expected, weights = model(IDS).logits, {name for name, _ in model.named_parameters()}
    adapted = add_lora(model, LoraSettings(use_peft=True, lora_r=2, lora_senses=senses)).eval()
    assert is_lora(adapted) and not is_lora(model)
    torch.testing.assert_close(adapted(IDS).logits, expected, rtol=0, atol=0)
    of_senses = {name for name in trainable(adapted) if is_of_senses(name)}
    assert all("lora_" in name for name in trainable(adapted) - of_senses)
    assert all(("lora_" in name) == (senses == "lora") for name in of_senses)
    matrices = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    adapted_matrices = {name.split("h.0.")[1].split(".lora_")[0] for name in trainable(adapted) - of_senses}
    assert adapted_matrices == matrices
    merged = merge_lora(adapted)
    assert {name for name, _ in merged.named_parameters()} == weights
    assert merge_lora(merged) is merged


def test_without_use_peft_nothing_is_added():
    model = tiny_model(tiny_tokenizer())
    assert add_lora(model, LoraSettings()) is model


@pytest.mark.parametrize("trainer_class", [LoraTrainer, LoraSensesTrainer])
def test_the_same_phases_and_an_exact_resume(tmp_path, trainer_class):
    fields = dict(trainer_class=trainer_class, save_strategy="steps", save_steps=4, eval_rows=6, eval_steps=6)
    start = dict(tiny_model(tiny_tokenizer()).named_parameters())
    whole = tiny_trainer(tmp_path / "whole", **fields)
    everything = trainable(whole.model)
    whole.train()
    # Frozen in polish: the senses, and nothing else that was trained.
    assert everything - trainable(whole.model) == {name for name in everything if is_of_senses(name)}
    # They are computed from embeddings that are not trained, hence do not move.
    drifts = [row["sense_drift_cosine"] for row in whole.state.log_history if "sense_drift_cosine" in row]
    assert drifts == pytest.approx([1.0] * 6, abs=1e-6)
    saved = [load_file(tmp_path / f"whole/checkpoint-{step}/adapter_model.safetensors") for step in (4, 8, 12)]
    for name in saved[0]:
        assert torch.equal(saved[1][name], saved[2][name]) == is_of_senses(name), name
        assert not torch.equal(saved[0][name], saved[1][name]), name

    for step in (4, 8):
        resumed = tiny_trainer(tmp_path / f"resumed-{step}", **fields)
        resumed.train(resume_from_checkpoint=f"{tmp_path}/whole/checkpoint-{step}")
        last = load_file(tmp_path / f"resumed-{step}/checkpoint-12/adapter_model.safetensors")
        assert all(torch.equal(last[name], weight) for name, weight in saved[2].items())
        losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (whole, resumed)]
        assert losses[0] == losses[1]

    # The merged model is the adapted one, in the layout of any Backpack.
    expected = whole.model.eval()(IDS).logits
    measured = whole.evaluate()
    whole.model = merge_lora(whole.model)
    assert without_intervals(whole.evaluate()) == pytest.approx(without_intervals(measured), rel=1e-4)
    whole.save_model(tmp_path / "merged")
    merged = BackpackForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=0, atol=1e-4)
    kept = {"backbone.wte", "backbone.wpe", "ln_", "lm_head"}
    for name, weight in merged.named_parameters():
        if not is_of_senses(name):
            assert torch.equal(weight, start[name]) == (any(part in name for part in kept) or "bias" in name), name


def test_constant_senses_need_no_copy_of_frozen_embeddings():
    adapted = add_lora(tiny_model(tiny_tokenizer()), LoraSettings(use_peft=True))
    freeze_senses(adapted.get_base_model().backpack, "vectors")
    assert adapted.get_base_model().backpack.sense_embeddings is None
    assert not {name for name in trainable(adapted) if is_of_senses(name)}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"lora_r": 0}, "`lora_r` is 0"),
        ({"lora_alpha": -1.0}, "`lora_alpha` is -1.0"),
        ({"lora_dropout": 1.0}, "`lora_dropout` is 1.0"),
        ({"lora_senses": "none"}, "`lora_senses` is 'none'"),
    ],
)
def test_refused_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        LoraSettings(use_peft=True, **fields)
