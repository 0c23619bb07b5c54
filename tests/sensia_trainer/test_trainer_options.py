"""What a step leaves out, and the options that change how it is computed but not what: precision, recomputation."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from sensia_trainer.trainer import SensiaTrainer
from tests.tiny import tiny_trainer


def trained(folder, **fields):
    """Made and trained before the next one is made, which draws the same random numbers again."""
    trainer = tiny_trainer(folder, **fields)
    trainer.train()
    return trainer


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


class Spy(TrainerCallback):
    """Notes, for each step, what the model was asked for and what it gave."""

    def __init__(self):
        self.asked, self.outputs = [], []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def note(module, args, kwargs, outputs):
            self.asked.append({name for name, value in kwargs.items() if value is not None and value is not False})
            self.outputs.append(outputs)

        model.register_forward_hook(note, with_kwargs=True)


@pytest.mark.parametrize(
    "weight, asked",
    [
        ("w_sense", set()),
        ("w_context", {"output_senses"}),
        ("w_lm", {"output_senses"}),
    ],
)
def test_nothing_is_computed_for_a_loss_without_weight(tmp_path, weight, asked):
    spy = Spy()
    trainer = tiny_trainer(tmp_path, callbacks=[spy], max_steps=2, **{weight: 0.0})
    trainer.train()
    optional = {"output_senses", "output_sense_weights", "output_hidden_states"}
    assert [names & optional for names in spy.asked] == [asked] * 2
    assert all(outputs.logits.shape[1] == 0 for outputs in spy.outputs)
    assert f"loss_{weight[2:]}" not in trainer.state.log_history[0]


@pytest.mark.parametrize("polish_freeze", ["modules", "vectors"])
def test_no_gradients_are_computed_for_what_is_frozen(tmp_path, polish_freeze):
    spy, grads = Spy(), []

    class Grads(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            frozen = [model.backpack.sense_network, model.backpack.sense_weight_net]
            grads.append(any(p.grad is not None for module in frozen for p in module.parameters()))

    tiny_trainer(tmp_path, callbacks=[spy, Grads()], polish_freeze=polish_freeze).train()
    assert grads == [True] * 6 + [False] * 6
    # Constant senses drop out of the graph altogether; else the word embeddings still learn through them.
    assert [outputs.senses.requires_grad for outputs in spy.outputs] == [True] * 6 + [polish_freeze == "modules"] * 6


@pytest.mark.parametrize("fields", [{}, {"sense_pooling": "contextual"}, {"contrastive_chunk_size": 4}])
def test_gradient_checkpointing_changes_nothing(tmp_path, fields):
    kept = trained(tmp_path / "kept", **fields)
    recomputed = trained(tmp_path / "recomputed", gradient_checkpointing=True, **fields)
    assert recomputed.model.is_gradient_checkpointing
    assert losses(recomputed) == pytest.approx(losses(kept), rel=1e-6)


@pytest.mark.slow
def test_compiled_training_is_that_of_the_plain_model(tmp_path):
    """Through the boundary of polish, with dropout off: compiled code draws its masks token by token."""
    plain = trained(tmp_path / "plain", dropout=0.0)
    compiled = trained(tmp_path / "compiled", dropout=0.0, torch_compile_backend="eager")
    assert compiled.args.torch_compile
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)


def test_bfloat16_keeps_float32_weights_and_resumes_exactly(tmp_path):
    fields = dict(dropout=0.0, learning_rate=1e-3)
    exact = trained(tmp_path / "exact", **fields)
    fields |= dict(bf16=True, save_strategy="steps", save_steps=5)
    whole, resumed = trained(tmp_path / "whole", **fields), tiny_trainer(tmp_path / "resumed", **fields)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/whole/checkpoint-5")
    assert {parameter.dtype for parameter in whole.model.parameters()} == {torch.float32}
    assert losses(whole) != losses(exact)
    assert losses(whole) == pytest.approx(losses(exact), rel=0.05)
    assert losses(resumed) == losses(whole)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_evaluation_in_bfloat16_is_that_in_float32_but_for_rounding(tmp_path):
    exact, half = (tiny_trainer(tmp_path / str(bf16), bf16=bf16, eval_rows=12) for bf16 in (False, True))
    measured = [trainer.evaluate() | trainer.random_weights_recall("eval") for trainer in (exact, half)]
    assert set(measured[0]) == set(measured[1])
    for key in ("eval_target_bits_per_byte", "eval_sense_entropy_source", "eval_overlap_recall_source_to_target"):
        assert measured[1][key] == pytest.approx(measured[0][key], rel=0.02)


class Scaled(SensiaTrainer):
    """With the loss scaler of fp16, which Accelerate makes for accelerators only; its first scale is far too large."""

    init_scale = 2.0**127

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        scales = dict(init_scale=self.init_scale, backoff_factor=2.0**-60, growth_interval=3)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", **scales)


class ScaledOtherwise(Scaled):
    init_scale = 2.0**10


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_loss_scale_is_saved_and_its_skips_are_counted(tmp_path, optim):
    fields = dict(optim=optim, max_grad_norm=0.0, save_strategy="steps", save_steps=1, max_steps=8)
    whole = tiny_trainer(tmp_path / "whole", trainer_class=Scaled, **fields)
    start = {name: weight.clone() for name, weight in whole.model.state_dict().items()}
    whole.train()
    logged = [row.get("skipped_steps", 0) for row in whole.state.log_history if "loss" in row]
    skipped = logged[-1]
    assert 0 < skipped < 4 and logged == [min(i + 1, skipped) for i in range(8)]
    first, second = (load_file(tmp_path / f"whole/checkpoint-{skipped + i}/model.safetensors") for i in (0, 1))
    assert all(torch.equal(weight, start[name]) for name, weight in first.items())
    assert not all(torch.equal(weight, start[name]) for name, weight in second.items())

    resumed = tiny_trainer(tmp_path / "resumed", trainer_class=ScaledOtherwise, **fields)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/whole/checkpoint-4")
    assert resumed.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    assert [row.get("skipped_steps") for row in resumed.state.log_history][-2] == skipped
    assert losses(resumed) == losses(whole)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_a_source_weight_for_a_frozen_vocabulary_holds_what_else_is_trained(tmp_path, caplog):
    """The senses learn from the source side, as its loss says, and where nothing is trained it is refused."""

    def trainer(weight, senses=True):
        def in_part(model, args, **kwargs):
            model.requires_grad_(False).backpack.sense_network.requires_grad_(senses)
            return SensiaTrainer(model, args, **kwargs)

        fields = dict(max_steps=1, w_sense=0.0, w_context=0.0, w_lm=1.0, polish_freeze="none", dropout=0.0)
        return tiny_trainer(tmp_path, trainer_class=in_part, source_lm_weight=weight, **fields)

    with pytest.raises(ValueError, match="`source_lm_weight` is 1, but the vocabulary .* is frozen.*.`train`"):
        trainer(1.0, senses=False)
    learned = []
    for weight in (0.0, 1.0):
        caplog.clear()
        one = trainer(weight)
        assert ("the vocabulary of the model is frozen" in caplog.text) == (weight > 0)
        one.train()
        learned.append(torch.cat([p.detach().flatten() for p in one.model.backpack.sense_network.parameters()]))
    assert not torch.equal(*learned)
