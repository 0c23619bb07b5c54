"""Cached contrastive gradients in the trainer are those of the whole batch; non-finite losses stop or are left out."""

import math

import pytest
import torch
from transformers import TrainerCallback

from sensia_trainer.config import SensiaConfig
from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.training.callbacks import NonFiniteError
from tests.tiny import tiny_texts, tiny_trainer


TEXTS = {"source": tiny_texts("en"), "target": tiny_texts("id")}


def gradients_of_a_step(folder, progress_step, **fields):
    """Gradients of the first batch as if `progress_step` of 12 steps were done, and the loss and terms reported."""
    trainer = tiny_trainer(folder, dropout=0.0, **fields)
    trainer.model.double()
    inputs = next(iter(trainer.get_train_dataloader()))
    labels = inputs["num_labels"]
    trainer.state.max_steps, trainer.state.global_step = 12, progress_step
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer()
    loss = trainer.training_step(trainer.model, inputs, labels)
    grads = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss, grads, {name: float(total) for name, (total, _) in trainer._sums.items()}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sense_pooling": "contextual", "hard_negative_weight": 1.0, "noisy_pair_exponent": 0.3},
        {"w_sense": 0.0},
        {"w_lm": 0.0},
        {"source_lm_weight": 0.5, "texts": TEXTS, "sense_pooling": "mixture"},
        {"w_sense": 0.0, "w_context": 0.0},
        {"w_sense": 0.0, "w_context": 0.0, "source_lm_weight": 0.5, "texts": TEXTS},
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_chunked_gradients_equal_the_direct_ones(tmp_path, chunk, fields):
    loss, grads, terms = gradients_of_a_step(tmp_path, 3, **fields)
    cached_loss, cached_grads, cached_terms = gradients_of_a_step(tmp_path, 3, contrastive_chunk_size=chunk, **fields)
    assert cached_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert cached_grads.keys() == grads.keys()
    for name, grad in grads.items():
        scale = grad.abs().max().clamp_min(1e-3)
        torch.testing.assert_close(cached_grads[name] / scale, grad / scale, rtol=0, atol=1e-6, msg=name)
    losses = [name for name in terms if name.startswith("loss_")]
    assert {name: cached_terms[name] for name in losses} == pytest.approx({name: terms[name] for name in losses})


class Broken(SensiaTrainer):
    """The context loss of the third step is NaN."""

    def contrastive_loss(self, name, *args):
        loss = super().contrastive_loss(name, *args)
        return loss * math.nan if self.state.global_step == 2 and name == "context" else loss


@pytest.mark.parametrize("chunk", [0, 4])
def test_a_non_finite_loss_stops_with_step_term_and_rows(tmp_path, chunk):
    trainer = tiny_trainer(tmp_path, trainer_class=Broken, contrastive_chunk_size=chunk)
    with pytest.raises(NonFiniteError) as error:
        trainer.train()
    assert "step 3: context = nan" in str(error.value)
    assert "learning_rate" in str(error.value)
    rows = str(error.value).split("process: [")[1].split("]")[0].split(", ")
    assert len(set(rows)) == 8


def test_a_non_finite_loss_can_be_skipped_and_counted(tmp_path):
    trainer = tiny_trainer(tmp_path, trainer_class=Broken, non_finite_loss="skip", max_steps=4)
    weights = []
    trainer.watch.on_step_end = lambda *args, **kwargs: weights.append(trainer.model.lm_head.weight.clone())
    trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    assert [row.get("skipped_batches") for row in logged] == [None, None, 1, 1]
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])


def test_the_two_options_exclude_each_other():
    with pytest.raises(ValueError, match="`non_finite_loss` is 'skip'.*contrastive_chunk_size"):
        SensiaConfig("folder", contrastive_chunk_size=4, non_finite_loss="skip", use_cpu=True)
    with pytest.raises(ValueError, match="`contrastive_chunk_size` is -1"):
        SensiaConfig("folder", contrastive_chunk_size=-1, use_cpu=True)
    with pytest.raises(ValueError, match="`non_finite_loss` is 'ignore'"):
        SensiaConfig("folder", non_finite_loss="ignore", use_cpu=True)


def test_skipping_is_refused_where_it_would_let_replicas_diverge(monkeypatch):
    """A skipped batch is not reduced over the processes: nor is what earlier micro-batches left for it to reduce."""
    fields = {"non_finite_loss": "skip", "use_cpu": True}
    SensiaConfig("folder", gradient_accumulation_steps=2, **fields)
    monkeypatch.setattr(SensiaConfig, "world_size", 2)
    SensiaConfig("folder", **fields)
    with pytest.raises(
        ValueError, match="`non_finite_loss` is 'skip'.*`gradient_accumulation_steps` is 2.*2 processes"
    ):
        SensiaConfig("folder", gradient_accumulation_steps=2, **fields)


def test_deterministic_mode_gives_the_same_run_twice(tmp_path):
    runs = []
    for name in ("first", "second"):
        trainer = tiny_trainer(tmp_path / name, full_determinism=True, max_steps=8, sense_pooling="contextual")
        try:
            trainer.train()
        finally:
            torch.use_deterministic_algorithms(False)
        runs.append(trainer)
    losses = [[row["loss"] for row in run.state.log_history if "loss" in row] for run in runs]
    assert losses[0] == losses[1]
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class NonFiniteGradients(SensiaTrainer):
    """Losses stay finite while gradients become NaN, from the third step on or in it alone."""

    bad_steps = range(2, 99)

    def compute_loss(self, model, *args, **kwargs):
        loss = super().compute_loss(model, *args, **kwargs)
        if self.state.global_step in self.bad_steps:
            # The root has the value 0 and an infinite gradient there.
            loss = loss + 0 * (0 * model.lm_head.weight.sum()).sqrt()
        return loss


class NonFiniteOnce(NonFiniteGradients):
    bad_steps = (2,)


def test_gradients_that_are_nan_stop_a_run_before_its_weights_are(tmp_path):
    fields = dict(save_strategy="steps", save_steps=1)
    trainer = tiny_trainer(tmp_path, trainer_class=NonFiniteGradients, **fields)
    with pytest.raises(NonFiniteError, match="gradients at step 3.*learning_rate"):
        trainer.train()
    assert all(torch.isfinite(weight).all() for weight in trainer.model.parameters())
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_a_step_with_nan_gradients_can_be_left_out(tmp_path):
    weights = []
    trainer = tiny_trainer(tmp_path, trainer_class=NonFiniteOnce, non_finite_loss="skip", max_steps=4)
    trainer.watch.on_step_end = lambda *args, **kwargs: weights.append(trainer.model.lm_head.weight.clone())
    trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    assert [row.get("skipped_batches") for row in logged] == [None, None, 1, 1]
    assert torch.equal(weights[1], weights[2]) and not torch.equal(weights[2], weights[3])
    assert all(torch.isfinite(weight).all() for weight in weights)


def test_skipping_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr("sensia_trainer.training.callbacks.MAX_SKIPPED", 3)
    trainer = tiny_trainer(tmp_path, trainer_class=NonFiniteGradients, non_finite_loss="skip")
    with pytest.raises(NonFiniteError, match="4 steps left out one after the other"):
        trainer.train()
    assert trainer.state.global_step == 5


class NonFiniteLosses(SensiaTrainer):
    def contrastive_loss(self, name, *args):
        loss = super().contrastive_loss(name, *args)
        return loss * math.nan if self.state.global_step >= 2 else loss


def test_skipping_of_losses_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr("sensia_trainer.training.callbacks.MAX_SKIPPED", 3)
    trainer = tiny_trainer(tmp_path, trainer_class=NonFiniteLosses, non_finite_loss="skip")
    with pytest.raises(NonFiniteError, match="4 steps left out one after the other"):
        trainer.train()
    assert trainer.state.global_step == 5


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    class Spoils(TrainerCallback):
        def __init__(self, step):
            self.step = step

        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == self.step:
                with torch.no_grad():
                    model.lm_head.weight[3, 5] = math.inf

    fields = dict(save_strategy="steps", save_steps=2)
    with pytest.raises(NonFiniteError, match="After step 4.*`learning_rate`"):
        tiny_trainer(tmp_path, callbacks=[Spoils(4)], **fields).train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    with pytest.raises(NonFiniteError, match="After step 12"):  # nor handed over where nothing is saved before
        tiny_trainer(tmp_path / "without", callbacks=[Spoils(12)]).train()
