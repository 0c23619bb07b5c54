"""
The Backpack of stanfordnlp/backpack-gpt2 restated: as formulas over a state dict in the published names, one text at a
time and one sense at a time, and as a module of the published layout, which keeps every intermediate tensor.
"""

import math

import torch
from torch import nn
from transformers import GPT2Model
from transformers.pytorch_utils import Conv1D


def layer_norm(state, name, x, eps):
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu_new(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def conv1d(state, name, x):
    return x @ state[f"{name}.weight"] + state[f"{name}.bias"]


def mlp(state, name, x):
    return conv1d(state, f"{name}.c_proj", gelu_new(conv1d(state, f"{name}.c_fc", x)))


def causal_softmax(scores):
    length = scores.shape[0]
    weights = torch.zeros_like(scores)
    for t in range(length):
        weights[t, : t + 1] = torch.softmax(scores[t, : t + 1], dim=0)
    return weights


def gpt2(state, input_ids, num_layers, num_heads, inverse_layer, eps):
    """State after ln_f, `(T, d)`."""
    prefix = "backpack.gpt2_model"
    x = state[f"{prefix}.wte.weight"][input_ids] + state[f"{prefix}.wpe.weight"][: len(input_ids)]
    head_dim = x.shape[1] // num_heads
    for i in range(num_layers):
        block = f"{prefix}.h.{i}"
        normed = layer_norm(state, f"{block}.ln_1", x, eps)
        query, key, value = conv1d(state, f"{block}.attn.c_attn", normed).chunk(3, dim=-1)
        heads = []
        for h in range(num_heads):
            part = slice(h * head_dim, (h + 1) * head_dim)
            scores = query[:, part] @ key[:, part].T / math.sqrt(head_dim)
            if inverse_layer:
                scores = scores / (i + 1)
            heads.append(causal_softmax(scores) @ value[:, part])
        x = x + conv1d(state, f"{block}.attn.c_proj", torch.cat(heads, dim=-1))
        x = x + mlp(state, f"{block}.mlp", layer_norm(state, f"{block}.ln_2", x, eps))
    return layer_norm(state, f"{prefix}.ln_f", x, eps)


def sense_vectors(state, embeddings, num_senses, eps):
    """Senses `(..., K, d)` of word embeddings `(..., d)`."""
    network = "backpack.sense_network"
    residual = layer_norm(state, f"{network}.ln", embeddings, eps) + embeddings
    residual = residual + mlp(state, f"{network}.block.mlp", layer_norm(state, f"{network}.block.ln_1", residual, eps))
    normed = layer_norm(state, f"{network}.block.ln_2", residual, eps)
    flat = mlp(state, f"{network}.final_mlp", normed)
    return flat.reshape(*flat.shape[:-1], num_senses, embeddings.shape[-1])


def sense_weights(state, hidden, num_senses):
    """alpha `(K, T, T)` from the backbone's state `(T, d)`."""
    head_dim = hidden.shape[1] // num_senses
    projected = hidden @ state["backpack.sense_weight_net.c_attn.weight"].T
    projected = projected + state["backpack.sense_weight_net.c_attn.bias"]
    queries, keys = projected.chunk(2, dim=-1)
    weights = []
    for k in range(num_senses):
        part = slice(k * head_dim, (k + 1) * head_dim)
        weights.append(causal_softmax(queries[:, part] @ keys[:, part].T / math.sqrt(head_dim)))
    return torch.stack(weights)


def backpack(state, input_ids, num_layers, num_heads, num_senses, inverse_layer=True, sense_scale=1.0, eps=1e-5):
    """
    One text `(T,)`, no padding.

    Returns a `dict` of the backbone's state "hidden" (T, d), "senses" (T, K, d), "weights" (K, T, T), "mixture" (T, d)
    and "logits" (T, V).
    """
    embeddings = state["backpack.gpt2_model.wte.weight"]
    hidden = gpt2(state, input_ids, num_layers, num_heads, inverse_layer, eps)
    senses = sense_vectors(state, embeddings[input_ids], num_senses, eps)
    weights = sense_weights(state, hidden, num_senses)
    mixture = torch.zeros_like(hidden)
    for k in range(num_senses):
        mixture = mixture + weights[k] @ senses[:, k]
    mixture = sense_scale * mixture
    return {
        "hidden": hidden,
        "senses": senses,
        "weights": weights,
        "mixture": mixture,
        "logits": mixture @ embeddings.T,
    }


class PublishedMLP(nn.Module):
    def __init__(self, config, inner, outer):
        super().__init__()
        self.c_fc = Conv1D(inner, config.n_embd)
        self.c_proj = Conv1D(outer, inner)

    def forward(self, x):
        return self.c_proj(gelu_new(self.c_fc(x)))


class PublishedBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = PublishedMLP(config, 4 * config.n_embd, config.n_embd)


class PublishedSenseNetwork(nn.Module):
    def __init__(self, config, num_senses, scale):
        super().__init__()
        self.block = PublishedBlock(config)
        self.ln = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.final_mlp = PublishedMLP(config, scale * config.n_embd, num_senses * config.n_embd)

    def forward(self, embeddings):
        residual = self.ln(embeddings) + embeddings
        residual = self.block.mlp(self.block.ln_1(residual)) + residual
        return self.final_mlp(self.block.ln_2(residual))


class PublishedWeightNetwork(nn.Module):
    def __init__(self, config, num_senses):
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 2 * num_senses * (config.n_embd // num_senses))


class PublishedBackbone(nn.Module):
    def __init__(self, config, num_senses, scale):
        super().__init__()
        self.gpt2_model = GPT2Model(config)
        self.sense_network = PublishedSenseNetwork(config, num_senses, scale)
        self.word_embeddings = self.gpt2_model.wte
        self.position_embeddings = self.gpt2_model.wpe
        self.sense_weight_net = PublishedWeightNetwork(config, num_senses)


class PublishedBackpack(nn.Module):
    """
    The published layout: its `state_dict` has the published names, aliases included. No mask, no cache, no dropout in
    the sense network; logits of every position, and the (B, K, T, d) contributions as a tensor of their own.
    """

    def __init__(self, config, num_senses=16, sense_intermediate_scale=4):
        super().__init__()
        self.num_senses = num_senses
        self.backpack = PublishedBackbone(config, num_senses, sense_intermediate_scale)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.backpack.gpt2_model.wte.weight

    def states(self, input_ids, attention_mask=None):
        """Senses `(B, K, T, d)`, sense weights `(B, K, T, T)` and contributions `(B, K, T, d)`."""
        model = self.backpack
        batch_size, length = input_ids.shape
        hidden = model.gpt2_model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        senses = model.sense_network(model.word_embeddings(input_ids))
        senses = senses.view(batch_size, length, self.num_senses, -1).transpose(1, 2)
        projected = model.sense_weight_net.c_attn(hidden).view(batch_size, length, 2, self.num_senses, -1)
        query, key = projected.unbind(2)
        scores = torch.einsum("btkm,bskm->bkts", query, key) / math.sqrt(query.shape[-1])
        scores = scores + torch.full((length, length), -10000.0, dtype=scores.dtype).triu(1)
        weights = torch.softmax(scores, dim=-1)
        return senses, weights, weights @ senses

    def forward(self, input_ids, labels=None):
        """Logits `(B, T, V)`, or the mean next-token cross-entropy when `labels` are given."""
        logits = self.lm_head(self.states(input_ids)[2].sum(dim=1))
        if labels is None:
            return logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens):
        """Greedy, every position recomputed for every token."""
        for _ in range(max_new_tokens):
            input_ids = torch.cat([input_ids, self(input_ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
        return input_ids
