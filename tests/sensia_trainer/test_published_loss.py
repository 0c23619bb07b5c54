"""The published training step, restated, and this trainer with its choices have one loss: speed is told against it."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config

from modeling_backpack import BackpackForCausalLM
from tests.modeling_backpack.test_published import published_config
from tests.modeling_backpack.tiny import spread
from tests.reference.adaptation import published_loss
from tests.reference.backpack import PublishedBackpack
from tests.reference.batches import padded_sides
from tests.tiny import tiny_tokenizer, tiny_trainer


SIZES = {"vocab_size": len(tiny_tokenizer()), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}
SIZES |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A Backpack as published, and what is read here of its weights; both in float64."""
    folder = tmp_path_factory.mktemp("published")
    config = GPT2Config(**SIZES, scale_attn_by_inverse_layer_idx=True)
    published = spread(PublishedBackpack(config, 4)).double().eval()
    (folder / "config.json").write_text(json.dumps(published_config(num_senses=4) | SIZES))
    weights = {name: value.contiguous().clone() for name, value in published.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return published, BackpackForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()


@pytest.mark.parametrize(
    "weights",
    [{}, {"w_lm": 0.0}, {"w_sense": 0.0, "w_context": 0.0}, {"w_sense": 0.0, "w_lm": 0.0}],
    ids=["all", "alignment", "language model", "contexts"],
)
def test_the_published_step_has_the_loss_of_this_trainer(models, tmp_path, weights):
    published, model = models
    choices = {"symmetric": False, "sense_pooling": "contextual", "predict_end": False, "label_smoothing": 0.05}
    trainer = tiny_trainer(tmp_path, dropout=0.0, **choices, **weights)
    trainer.current_gradient_accumulation_steps = 1
    trainer.state.max_steps, trainer.state.global_step = 12, 3
    now = trainer.args.phase_state(3 / 12)
    rows = [trainer.train_dataset[i] for i in range(6)]
    sides = padded_sides(rows, pad=0, end=None)
    sides["labels"] = sides.pop("target_labels")
    taus = now.tau_sense, now.tau_context
    theirs = published_loss(published, sides, (now.w_sense, now.w_context, now.w_lm), taus)
    ours = trainer.compute_loss(model, trainer.data_collator(rows))
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-9)
