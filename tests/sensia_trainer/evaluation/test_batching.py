"""What every evaluation shares."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import NewGELUActivation

from sensia_trainer.evaluation.batching import evaluating


def test_evaluation_leaves_a_model_as_it_was_and_computes_the_same():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, initializer_range=1.0, activation_function="gelu_new"
    )
    model = GPT2LMHeadModel(config).double().eval()
    ids = torch.arange(12)[None]
    expected = model(ids).logits
    model.train()
    model.transformer.h[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    activations = [module for module in model.modules() if isinstance(module, NewGELUActivation)]
    assert len(activations) == 2
    with pytest.raises(KeyError), evaluating(model):
        assert not torch.is_grad_enabled() and not any(module.training for module in model.modules())
        assert all("forward" in vars(module) for module in activations)
        torch.testing.assert_close(model(ids).logits, expected)
        raise KeyError
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not any("forward" in vars(module) for module in activations)
