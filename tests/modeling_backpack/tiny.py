"""Backpacks of some ten thousand weights on four kinds of backbone, and a published checkpoint of the same size."""

import torch
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen3Config

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from tests.reference.backpack import PublishedBackpack


VOCAB_SIZE = 97
SIZES = dict(vocab_size=VOCAB_SIZE, bos_token_id=0, eos_token_id=0, pad_token_id=0)
ROTARY = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
GPT2 = SIZES | dict(n_embd=32, n_layer=3, n_head=4, n_positions=64)
BACKBONES = {
    "gpt2": lambda: GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True),
    "llama": lambda: LlamaConfig(**SIZES, **ROTARY, num_key_value_heads=2, max_position_embeddings=96),
    "qwen3": lambda: Qwen3Config(
        **SIZES, **ROTARY, num_key_value_heads=2, head_dim=8, max_position_embeddings=96, tie_word_embeddings=True
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES, **ROTARY, max_position_embeddings=96),
}


def spread(model, seed=0):
    """Weights ten times wider than at initialisation, biases too: attention is sharp and every term counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise.to(parameter.dtype))
    return model


def tiny_backpack(backbone="gpt2", num_senses=4, dtype=torch.float32, **config):
    config = BackpackConfig(backbone_config=BACKBONES[backbone](), num_senses=num_senses, **config)
    torch.manual_seed(0)
    return spread(BackpackForCausalLM(config)).to(dtype).eval()


def tiny_published(num_senses=4, sense_intermediate_scale=4, **config):
    torch.manual_seed(0)
    config = GPT2Config(**GPT2 | {"scale_attn_by_inverse_layer_idx": True} | config)
    return spread(PublishedBackpack(config, num_senses, sense_intermediate_scale)).eval()


def random_ids(*shape, seed=0):
    """Token ids without the padding id 0."""
    return torch.randint(1, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))
