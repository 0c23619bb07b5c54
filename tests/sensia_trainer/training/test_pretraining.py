"""The model of a pretraining: fresh, or one to go on from."""

from functools import partial

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from sensia_trainer.training.callbacks import NonFiniteError
from sensia_trainer.training.checkpoint_files import checkpoints
from sensia_trainer.training.pretraining import (
    PretrainingTrainer,
    build_model,
    collate_blocks,
)
from sensia_trainer.training.settings import PretrainingArguments, PretrainingData
from tests.distributed import run_on_processes
from tests.tiny import tiny_model, tiny_tokenizer


SMALL = {"n_embd": 16, "n_layer": 1, "n_head": 2}


def data(**fields):
    return PretrainingData(text_files=["a.txt"], **{"block_size": 8, "vocab_size": 280} | fields)


def test_fresh_models():
    tokenizer = tiny_tokenizer()
    model = build_model(data(backbone_config=SMALL, backpack_config={"num_senses": 4}), tokenizer)
    assert model.config.num_senses == 4 and model.config.get_text_config().max_position_embeddings == 8
    assert data(backbone_config=None, backpack_config=None) == data()
    dense = build_model(data(backbone_config=SMALL, senses=False), tokenizer)
    assert type(dense).__name__ == "GPT2LMHeadModel"
    batch = collate_blocks([{"input_ids": [1, 2]}, {"input_ids": [3, 4]}])
    assert batch["input_ids"].tolist() == batch["labels"].tolist() == [[1, 2], [3, 4]]


def test_going_on_from_a_model(tmp_path):
    tokenizer = tiny_tokenizer()
    base = tiny_model(tokenizer)
    base.save_pretrained(tmp_path)
    model = build_model(data(model=str(tmp_path)), tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), base.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="`block_size` is 64, but the model has 40 positions; lower it"):
        build_model(data(model=str(tmp_path), block_size=64), tokenizer)
    tokenizer.add_tokens([f"word{n}" for n in range(90)])
    with pytest.raises(ValueError, match="`tokenizer` needs 370 ids, but the model has 280"):
        build_model(data(model=str(tmp_path)), tokenizer)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises((ValueError, OSError), match="model.safetensors"):
        build_model(data(model=str(tmp_path)), tiny_tokenizer())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "m", "backbone_config": {"n_layer": 2}}, "`model` is 'm', which has a configuration"),
        ({"vocab_size": 200}, "`vocab_size` is 200"),
        ({"senses": False, "backpack_config": {"num_senses": 4}}, "`senses` is false, but `backpack_config` is"),
    ],
)
def test_settings_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        data(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone_config": SMALL | {"n_layers": 3}}, "a gpt2 has no 'n_layers'. Did you mean 'n_layer'"),
        ({"backbone_config": {"model_type": "llama", "n_layer": 2}}, "a llama has no 'n_layer'"),
        ({"backbone_config": SMALL | {"n_head": 0}}, "No model can be made"),
        ({"backbone_config": SMALL | {"activation_function": "nosuch"}}, "No model can be made of .*nosuch"),
        ({"backbone_config": SMALL, "backpack_config": {"hidden_act": "nosuch"}}, "`hidden_act` must be one of"),
        ({"backbone_config": SMALL, "backpack_config": {"sense_intermediate_scale": 0}}, "must be 1 or more, got 0"),
    ],
)
def test_configurations_that_make_no_model(fields, message):
    for tokenizer in (tiny_tokenizer(), None):
        with pytest.raises(ValueError, match=message):
            build_model(data(**fields), tokenizer)


def test_fields_of_a_family_by_each_of_its_names():
    fields = {"hidden_size": 16, "num_hidden_layers": 1, "n_head": 2, "bos_token_id": 3}
    assert build_model(data(backbone_config=fields, backpack_config={"num_senses": 4}), None).config.hidden_size == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor` is 0.1, but only adaptation"),
        ({"resume_from_checkpoint": "out/checkpoint-1"}, "`resume_from_checkpoint` is 'out/checkpoint-1', but a run"),
        (
            {"load_best_model_at_end": True, "metric_for_best_model": "nosuch", "eval_strategy": "steps"},
            "`metric_for_best_model` is 'nosuch', but pretraining",
        ),
        (
            {"save_strategy": "best", "metric_for_best_model": "perplexity", "eval_strategy": "steps"},
            "`metric_for_best_model` is 'perplexity', but pretraining",
        ),
    ],
)
def test_arguments_without_effect_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        PretrainingArguments(output_dir=str(tmp_path), use_cpu=True, **fields)


class Explodes(PretrainingTrainer):
    """From step 5 on gradients are infinite, and losses are not."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.state.global_step >= 4:
            next(model.parameters()).grad.fill_(float("inf"))
        return loss


def test_bad_gradients_never_reach_a_checkpoint(tmp_path):
    rows = [{"input_ids": torch.randint(280, (8,)).tolist()} for _ in range(16)]
    trainer = Explodes(
        tiny_model(tiny_tokenizer()),
        PretrainingArguments(
            output_dir=str(tmp_path), max_steps=8, save_steps=1, save_total_limit=1, use_cpu=True, disable_tqdm=True
        ),
        data_collator=collate_blocks,
        train_dataset=rows,
    )
    with pytest.raises(NonFiniteError, match="gradients at step 5"):
        trainer.train()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-4"]
    assert isinstance(trainer.args, TrainingArguments)


def test_blocks_of_one_length_are_read_as_they_come_where_they_are_to_be_grouped_by_length(tmp_path):
    blocks = Dataset.from_dict({"input_ids": torch.randint(280, (16, 8)).tolist()})
    orders = []
    for strategy in ("random", "group_by_length"):
        fields = {"output_dir": str(tmp_path), "use_cpu": True, "train_sampling_strategy": strategy, "seed": 3}
        trainer = PretrainingTrainer(
            tiny_model(tiny_tokenizer()),
            PretrainingArguments(**fields),
            data_collator=collate_blocks,
            train_dataset=blocks,
        )
        torch.manual_seed(0)
        orders.append(list(trainer._get_train_sampler()))
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(16))


def pretrained(folder, *, senses=True, **fields):
    torch.manual_seed(0)
    model = tiny_model(tiny_tokenizer(), dropout=0.0)
    if not senses:
        sizes = {"vocab_size": len(tiny_tokenizer()), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
        model = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    blocks = [{"input_ids": torch.randint(280, (8,)).tolist()} for _ in range(16)]
    fields = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"} | fields
    return PretrainingTrainer(
        model,
        PretrainingArguments(output_dir=str(folder), **fields),
        data_collator=partial(collate_blocks, senses=senses),
        train_dataset=blocks,
    )


@pytest.mark.parametrize("senses", [True, False])
def test_the_loss_is_the_cross_entropy_of_every_next_token(tmp_path, senses):
    trainer = pretrained(tmp_path, senses=senses)
    model = trainer.model.double().eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    trainer.current_gradient_accumulation_steps = 1
    number = trainer._get_num_items_in_batch([batch], trainer.args.device)
    assert number == 3 * 7
    found = trainer.compute_loss(model, dict(batch), num_items_in_batch=number)
    logits = model(input_ids=batch["input_ids"]).logits
    labels = batch["input_ids"][:, 1:].flatten()
    torch.testing.assert_close(found, F.cross_entropy(logits[:, :-1].flatten(0, 1), labels), rtol=0, atol=1e-12)


@pytest.mark.parametrize("senses", [True, False])
def test_four_batches_of_two_are_one_of_eight_and_every_parameter_moves(tmp_path, senses):
    ends = []
    for name, size, parts in (("whole", 8, 1), ("parts", 2, 4)):
        fields = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "max_steps": 2}
        trainer = pretrained(tmp_path / name, senses=senses, learning_rate=1e-2, logging_steps=1, **fields)
        before = {key: value.clone() for key, value in trainer.model.named_parameters()}
        trainer.train()
        after = dict(trainer.model.named_parameters())
        assert not [key for key, value in before.items() if torch.equal(value, after[key])]
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        ends.append(({key: value.detach() for key, value in after.items()}, losses))
    (whole, once), (parts, in_parts) = ends
    assert once == pytest.approx(in_parts, rel=1e-4)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-3, atol=2e-5)


def pretrain_both(folder, blocks):
    """A Backpack and a model without senses, with `blocks` blocks a batch on this process: what was logged."""
    fields = {"per_device_train_batch_size": blocks, "max_steps": 4, "learning_rate": 1e-3, "logging_steps": 1}
    logged = []
    for senses in (True, False):
        trainer = pretrained(folder, senses=senses, **fields)
        trainer.train()
        trainer.save_model(f"{folder}/{senses}")
        logged += [[row["loss"], row["grad_norm"]] for row in trainer.state.log_history if "loss" in row]
    return logged


@pytest.mark.distributed
def test_two_processes_equal_one(tmp_path):
    expected = pretrain_both(tmp_path / "one", 8)
    for rank in run_on_processes(pretrain_both, str(tmp_path / "two"), 4):
        torch.testing.assert_close(torch.tensor(rank), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    for senses in (True, False):
        weights, once = (load_file(tmp_path / name / str(senses) / "model.safetensors") for name in ("two", "one"))
        assert weights.keys() == once.keys()
        for key, value in once.items():
            torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=2e-5, msg=key)
