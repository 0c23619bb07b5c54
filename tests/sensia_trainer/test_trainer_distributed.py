"""An adaptation on two processes is the adaptation on one with the same global batch."""

import pytest
import torch
from transformers import TrainerCallback
from transformers.utils import is_peft_available

from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.training.parts import choose_parts
from sensia_trainer.training.settings import TrainedParts
from tests.distributed import run_on_processes
from tests.tiny import KeepsRows, tiny_languages, tiny_texts, tiny_trainer


pytestmark = pytest.mark.distributed

FREEZES = ["modules", "vectors"]


class PartsTrainer(KeepsRows):
    """Trains the senses, low-rank updates and some rows of the model it is given."""

    def __init__(self, model, *args, **kwargs):
        choose_parts(model, TrainedParts(train="lora", lora_r=2), range(260, 275))
        super().__init__(model, *args, **kwargs)


def adapt(folder, pairs, fields):
    """Through all three phases, two epochs and two evaluations, with `pairs` pairs on this process."""
    trainer = tiny_trainer(
        folder,
        per_device_train_batch_size=pairs,
        per_device_eval_batch_size=2,
        eval_rows=9,
        eval_steps=6,
        dropout=0.0,
        learning_rate=1e-3,
        **{"trainer_class": KeepsRows} | fields,
    )
    trainer.train()
    kept = ("loss", "grad_norm", "eval_", "drift", "entropy")
    return {
        "history": [
            {name: value for name, value in row.items() if name.startswith(kept) or "sense_" in name}
            for row in trainer.state.log_history
            if "train_loss" not in row
        ],
        "weights": trainer.accelerator.unwrap_model(trainer.model).state_dict(),
        "rows": trainer.seen,
    }


def adapt_all(folder, pairs):
    settings = [{"polish_freeze": freeze} for freeze in FREEZES] + [{"contrastive_chunk_size": 2}]
    texts = {"source": tiny_texts("en"), "target": tiny_texts("id")}
    settings += [{"source_lm_weight": 0.5, "texts": texts}]
    settings += [{"bitext": tiny_languages(24, 40), "batch_languages": kind} for kind in ("mixed", "one")]
    if is_peft_available():
        settings += [{"trainer_class": PartsTrainer}]
    settings += [{"gradient_accumulation_steps": 2, "rows": 104, "w_sense": 0.0, "w_context": 0.0}]
    return [adapt(f"{folder}/{pairs}-{i}", pairs, fields) for i, fields in enumerate(settings)]


def test_two_processes_equal_one(tmp_path):
    alone = adapt_all(tmp_path, 8)
    ranks = run_on_processes(adapt_all, str(tmp_path), 4)
    for expected, first, second in zip(alone, *ranks, strict=True):
        # Every rank sees its own half of each global batch.
        for both, one, two in zip(expected["rows"], first["rows"], second["rows"], strict=True):
            assert sorted(one + two) == sorted(both)
            assert not set(one) & set(two)
        for rank in (first, second):
            for row, expected_row in zip(rank["history"], expected["history"], strict=True):
                assert row == pytest.approx(expected_row, rel=1e-4, abs=1e-5)
            for name, weight in expected["weights"].items():
                torch.testing.assert_close(rank["weights"][name], weight, rtol=0, atol=1e-5, msg=name)
        # The replicas are the same to the bit.
        assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
        # Nine pairs over two processes in batches of two: none evaluated twice, none left out.
        pairs = [value for row in first["history"] for name, value in row.items() if name.endswith("_pairs")]
        assert pairs == [9] * len(pairs) and len(pairs) in (2, 4)  # of two pairs of languages twice as many


class Poisoned(SensiaTrainer):
    """On one process, the language-model loss of the third step is infinite."""

    def language_model_losses(self, *args):
        bad = self.state.global_step == 2 and self.args.process_index == 1
        losses = super().language_model_losses(*args)
        return {name: loss * (float("inf") if bad else 1) for name, loss in losses.items()}


class Weights(TrainerCallback):
    def __init__(self):
        self.after = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.after.append(model.lm_head.weight.detach().clone())


def skip_on_two_ranks(folder):
    weights = Weights()
    fields = {"non_finite_loss": "skip", "per_device_train_batch_size": 4, "max_steps": 5}
    trainer = tiny_trainer(folder, trainer_class=Poisoned, callbacks=[weights], **fields)
    trainer.train()
    return {"weights": torch.stack(weights.after), "counts": trainer.watch.counts}


def test_a_batch_that_is_bad_on_one_process_is_skipped_on_both(tmp_path):
    first, second = run_on_processes(skip_on_two_ranks, str(tmp_path))
    assert first["counts"]["skipped_batches"] == second["counts"]["skipped_batches"] == 1
    assert torch.equal(first["weights"], second["weights"])
    assert torch.isfinite(first["weights"]).all()
    assert torch.equal(first["weights"][1], first["weights"][2])
    assert not torch.equal(first["weights"][2], first["weights"][3])
