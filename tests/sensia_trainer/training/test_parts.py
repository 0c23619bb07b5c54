"""What is trained of a model moves, all else stays to the bit; runs resume exactly, and updates merge."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.baselines import DenseTrainer
from sensia_trainer.config import METHODS
from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.training.callbacks import freeze_senses
from sensia_trainer.training.parts import SENSE_MODULES, choose_parts, has_updates, merge_updates
from sensia_trainer.training.settings import TrainedParts
from tests.tiny import tiny_model, tiny_tokenizer, tiny_trainer, without_intervals


pytest.importorskip("peft", reason="peft is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")

IDS = torch.arange(12).view(2, 6)
NEW = range(270, 275)  # ids of the tiny tokenizer that play new words; what is behind them is padding


def dense_model(tied=True):
    torch.manual_seed(0)
    size = len(tiny_tokenizer())
    sizes = dict(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=40, tie_word_embeddings=tied)
    return GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1))


def gated_model(tied=True):
    model = BackpackForCausalLM.from_backbone(dense_model(tied), num_senses=4)
    with torch.no_grad():
        model.backpack.residual_gate.weight.fill_(0.5)
    return model


def plain_model():
    return tiny_model(tiny_tokenizer())


MODELS = {"plain": plain_model, "gated": gated_model, "untied": lambda: gated_model(False), "dense": dense_model}


def trainer_of(kind, **parts):
    """A trainer of parts of one of `MODELS`; the model that it is given is not read."""

    class Trainer(DenseTrainer if kind == "dense" else SensiaTrainer):
        def __init__(self, _, args, **kwargs):
            model = MODELS[kind]()
            choose_parts(model, TrainedParts(**parts), NEW)
            super().__init__(model, args, **kwargs)

    return Trainer


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def is_of_senses(name):
    return any(module in name for module in SENSE_MODULES)


def rows_that_moved(before, after):
    return (before != after).any(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("senses", ["full", "lora"])
def test_what_is_trained_and_what_it_starts_from(senses):
    model = plain_model().eval()
    expected, weights = model(IDS).logits, {name: p.detach().clone() for name, p in model.named_parameters()}
    choose_parts(model, TrainedParts(train="lora", lora_r=2, lora_senses=senses))
    assert has_updates(model)
    torch.testing.assert_close(model.eval()(IDS).logits, expected, rtol=0, atol=0)
    of_senses = {name for name in trainable(model) if is_of_senses(name)}
    assert all("lora_" in name for name in trainable(model) - of_senses)
    assert all(("lora_" in name) == (senses == "lora") for name in of_senses)
    matrices = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    assert {name.split("h.0.")[1].split(".lora_")[0] for name in trainable(model) - of_senses} == matrices
    assert merge_updates(model) is model and not has_updates(model)
    assert {name for name, _ in model.named_parameters()} == set(weights)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_all_changes_nothing():
    model = gated_model()
    everything = trainable(model)
    choose_parts(model, TrainedParts(), NEW)
    assert trainable(model) == everything and not has_updates(model)


@pytest.mark.parametrize("train", ["senses", "lora"])
@pytest.mark.parametrize("kind", ["plain", "gated", "untied", "dense"])
def test_what_is_trained_moves_and_the_rest_stays_to_the_bit(tmp_path, kind, train):
    if (kind, train) == ("dense", "senses"):
        with pytest.raises(ValueError, match="`train` is 'senses', but GPT2LMHeadModel has none"):
            trainer_of(kind, train=train)(None, None)
        return
    fields = METHODS["fine-tuning"] if kind == "dense" else {"context_state": "combined"}
    fields = fields | dict(source_lm_weight=0.5, weight_decay=0.1, save_strategy="steps", save_steps=4)
    fields["trainer_class"] = trainer_of(kind, train=train, lora_r=2, lora_dropout=0.1)
    whole = tiny_trainer(tmp_path / "whole", **fields)
    trained = trainable(whole.model)
    before = {name: parameter.detach().clone() for name, parameter in whole.model.named_parameters()}
    whole.train()
    after = dict(whole.model.named_parameters())
    rows = {name for name in trained if name.endswith(("wte.weight", "lm_head.weight"))}
    assert len(rows) == (2 if kind == "untied" else 1)
    updates = {name for name in trained if "lora_" in name}
    assert bool(updates) == (train == "lora")
    gate = {name for name in after if "residual_gate" in name}
    assert trained == rows | updates | gate | {name for name in after if is_of_senses(name)}
    for name, weight in after.items():
        if name in rows:
            # Those that no pair holds move as well in the head, which scores every word.
            moved = rows_that_moved(before[name], weight)
            assert moved and set(moved) <= set(NEW) and (kind == "untied" and "wte" in name or moved == list(NEW))
        else:
            assert torch.equal(weight, before[name]) == (name not in trained), name

    for step in (4, 8):
        resumed = tiny_trainer(tmp_path / f"resumed-{step}", **fields)
        resumed.train(resume_from_checkpoint=f"{tmp_path}/whole/checkpoint-{step}")
        assert all(torch.equal(weight, after[name]) for name, weight in resumed.model.named_parameters())
        losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (whole, resumed)]
        assert losses[0] == losses[1]


@pytest.mark.parametrize("senses", ["full", "lora"])
def test_polish_freezes_the_senses_and_leaves_the_rest(tmp_path, senses):
    trainer = tiny_trainer(tmp_path, trainer_class=trainer_of("gated", train="lora", lora_r=2, lora_senses=senses))
    everything = trainable(trainer.model)
    trainer.train()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    frozen = {names[id(parameter)] for parameter in trainer.phase_callback.frozen}  # until the end
    assert frozen == {name for name in everything if is_of_senses(name)} and trainable(trainer.model) == everything
    # The senses of old words are constant from then on; those of new words move with their rows.
    drifts = [row["sense_drift_cosine"] for row in trainer.state.log_history if "sense_drift_cosine" in row]
    assert len(drifts) == 6 and all(0.9 < drift < 1 + 1e-6 for drift in drifts)


def test_nothing_left_to_train_in_polish_is_refused(tmp_path):
    class Trainer(SensiaTrainer):
        def __init__(self, _, args, **kwargs):
            model = plain_model()
            choose_parts(model, TrainedParts(train="senses"))
            super().__init__(model, args, **kwargs)

    with pytest.raises(ValueError, match="nothing would learn in polish"):
        tiny_trainer(tmp_path, trainer_class=Trainer)
    assert trainable(tiny_trainer(tmp_path, trainer_class=Trainer, polish_freeze="none").model)


def test_merged_updates_are_the_adapted_model(tmp_path):
    trainer = tiny_trainer(tmp_path, trainer_class=trainer_of("plain", train="lora", lora_r=2), eval_rows=6)
    trainer.train()
    expected, measured = trainer.model.eval()(IDS).logits, trainer.evaluate()
    merge_updates(trainer.model)
    assert without_intervals(trainer.evaluate()) == pytest.approx(without_intervals(measured), rel=1e-4)
    trainer.save_model(tmp_path / "merged")
    merged = BackpackForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=0, atol=1e-4)
    assert set(load_file(tmp_path / "merged/model.safetensors")) == set(plain_model().state_dict()) - {
        "lm_head.weight"
    }


@pytest.mark.filterwarnings("ignore")
def test_experts_without_updates_are_named(caplog):
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    model = MixtralForCausalLM(config)
    stacked = {name for name, parameter in model.named_parameters() if parameter.ndim == 3}
    with caplog.at_level("WARNING", logger="sensia_trainer.training.parts"):
        choose_parts(model, TrainedParts(train="lora", lora_r=2))
    assert bool(stacked) == ("stay as they are" in caplog.text)
    assert not stacked & trainable(model)
    caplog.clear()
    choose_parts(plain_model(), TrainedParts(train="lora", lora_r=2))
    assert not caplog.text


def test_constant_senses_need_no_copy_of_frozen_embeddings():
    model = plain_model()
    choose_parts(model, TrainedParts(train="lora"))
    freeze_senses(model.backpack, "vectors")
    assert model.backpack.sense_embeddings is None
    assert not {name for name in trainable(model) if is_of_senses(name)}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"train": "some"}, "`train` is 'some'"),
        ({"lora_r": 0}, "`lora_r` is 0"),
        ({"lora_alpha": -1.0}, "`lora_alpha` is -1.0"),
        ({"lora_dropout": 1.0}, "`lora_dropout` is 1.0"),
        ({"lora_senses": "none"}, "`lora_senses` is 'none'"),
    ],
)
def test_refused_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainedParts(**{"train": "lora"} | fields)
