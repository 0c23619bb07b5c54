import pytest
from transformers import GPT2Config, GPT2LMHeadModel


@pytest.fixture
def tiny_gpt2(tokenizer):
    """A randomly initialised GPT-2 of two layers with sharp logits, so that its likelihoods differ."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config).eval()
