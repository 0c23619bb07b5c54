# Copyright 2026 The SENSIA authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
The senses of a Backpack: the network that makes them of words, the weights that choose among them in context, and
their mixture. `modeling_backpack.py` puts them on a decoder.
"""

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_backpack import MIXTURE_MODES


# Queries whose senses are weighed at once.
QUERY_BLOCK = 256


class BackpackMLP(nn.Module):
    def __init__(self, config, inner_size, output_size):
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, inner_size)
        self.c_proj = nn.Linear(inner_size, output_size)
        # The same function as "gelu_new" in one kernel.
        self.act = ACT2FN["gelu_pytorch_tanh" if config.hidden_act == "gelu_new" else config.hidden_act]
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states):
        return self.dropout(self.c_proj(self.act(self.c_fc(hidden_states))))


class BackpackNoMixBlock(nn.Module):
    """A transformer block whose mixer is the identity: no token sees another."""

    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.ln_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = BackpackMLP(config, 4 * config.hidden_size, config.hidden_size)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states, residual):
        residual = self.resid_dropout(hidden_states) + residual
        residual = self.resid_dropout(self.mlp(self.ln_1(residual))) + residual
        return self.ln_2(residual)


class BackpackSenseNetwork(GradientCheckpointingLayer):
    """Word embeddings `(..., d)` to senses `(..., K, d)`."""

    # The weight network stays whole: its heads are few, and every process needs the whole mixture.
    _tp_plan = {
        "block.mlp.c_fc": "colwise",
        "block.mlp.c_proj": "rowwise",
        "final_mlp.c_fc": "colwise",
        "final_mlp.c_proj": "rowwise",
    }

    def __init__(self, config):
        super().__init__()
        self.num_senses = config.num_senses
        self.dropout = nn.Dropout(config.embd_pdrop)
        self.ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.block = BackpackNoMixBlock(config)
        self.final_mlp = BackpackMLP(
            config, config.sense_intermediate_scale * config.hidden_size, config.num_senses * config.hidden_size
        )

    def forward(self, embeddings):
        embeddings = self.dropout(embeddings)
        senses = self.final_mlp(self.block(self.ln(embeddings), embeddings))
        return senses.unflatten(-1, (self.num_senses, -1))


class BackpackSenseWeightNetwork(GradientCheckpointingLayer):
    """Weighs the senses of a text by the backbone's states and sums them to the mixture."""

    def __init__(self, config, layer_idx):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_senses
        self.scaling = self.head_dim**-0.5
        self.c_attn = nn.Linear(config.hidden_size, 2 * config.num_senses * self.head_dim)

    def forward(self, hidden_states, senses, sense_mask, past_key_values=None, output_weights=False):
        """
        Args:
            hidden_states: The backbone's states, `(B, T, d)`.
            senses: `(B, T, K, d)`.
            sense_mask: Function of the number of keys S that returns a boolean mask, `(B or 1, 1, T, S)`.

        Returns:
            The mixture `(B, T, d)` and, with `output_weights`, the sense weights `(B, K, T, S)`.
        """
        batch_size, length = hidden_states.shape[:2]
        query_key = self.c_attn(hidden_states).view(batch_size, length, 2, self.config.num_senses, self.head_dim)
        query, key = query_key.unbind(2)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), senses.transpose(1, 2)
        cached = past_key_values is not None
        if cached:
            # Senses depend on the token alone, so they could be computed again instead of kept. On GPT-2 small (one
            # thread of a CPU, batch 1, 288 tokens, float32) keeping them takes 14 MB beside the backbone's 20 MB, and
            # computing them again some 270 ms a token where weighing the kept ones takes 8: they are kept.
            # `examples/benchmark.py model` measures both.
            key, value = past_key_values.update(key, value, self.layer_idx)

        num_keys = key.shape[2]
        mask = sense_mask(num_keys)
        mixtures, all_weights = [], []
        for start, stop in query_blocks(length):
            visible = num_keys - length + stop
            weights = self._weigh(query[:, :, start:stop], key[:, :, :visible], mask[:, :, start:stop, :visible])
            mixtures.append(self._mix(weights.to(value.dtype), value[:, :, :visible], sense_major=cached))
            if output_weights:
                all_weights.append(nn.functional.pad(weights, (0, num_keys - visible)))
        mixture = torch.cat(mixtures, dim=1) * self.config.sense_scale
        return mixture, torch.cat(all_weights, dim=2).to(value.dtype) if output_weights else None

    def _weigh(self, query, key, mask):
        scores = torch.matmul(query, key.transpose(2, 3)) * self.scaling
        scores = scores.masked_fill(~mask.to(scores.device), torch.finfo(scores.dtype).min)
        # At least float32 inside, whatever the precision of the model.
        return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))

    def _mix(self, weights, value, sense_major):
        # CODEPATH: every checkpoint is "full"; the other modes are ablations at inference.
        if self.config.mixture_mode == "full":
            return mix_senses(weights, value, sense_major)
        return ablated_mixture(weights, value, self.config)


class BackpackResidualGate(nn.Module):
    """Adds the mixture h to the state b of a finished language model: b + g h, and b itself at g = 0, the start."""

    def __init__(self):
        super().__init__()
        # One number in a vector, because FSDP cannot shard a scalar.
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float32))

    def forward(self, hidden_states, mixture):
        return hidden_states + self.weight.to(mixture.dtype) * mixture


def query_blocks(length):
    """Starts and ends of blocks of queries: a block need not look at the keys behind it."""
    if torch.compiler.is_compiling():  # the length may be dynamic, and a loop would fix it
        return [(0, length)]
    return [(start, min(start + QUERY_BLOCK, length)) for start in range(0, length, QUERY_BLOCK)]


def mix_senses(weights, value, sense_major):
    """
    The mixture sum_k sum_s alpha[b, k, t, s] S[b, k, s] as one matrix product over the joint (sense, position) axis,
    so that no (B, K, T, d) tensor exists.

    Args:
        weights: `(B, K, T, S)`.
        value: Senses, `(B, K, S, d)`.
        sense_major: Order of the joint axis. A cache holds (K, S, d), a fresh text (S, K, d) seen as (K, S, d): each
            is flattened in its own order, which makes it a view.

    Returns:
        `(B, T, d)`.
    """
    if sense_major:
        return torch.bmm(weights.transpose(1, 2).flatten(2), value.flatten(1, 2))
    return torch.bmm(weights.permute(0, 2, 3, 1).flatten(2), value.transpose(1, 2).flatten(1, 2))


def ablated_mixture(weights, value, config):
    """
    The mixture of a `top_k` or `uniform` model, `(B, T, d)`, from per-sense contributions c_k = alpha_k S_k.

    `uniform` is the mean over senses where the full mixture is the sum: without `mixture_norm_matched` it is the full
    mixture divided by K, with it the full mixture itself.
    """
    if config.mixture_mode not in MIXTURE_MODES:
        raise ValueError(f"`mixture_mode` must be one of {MIXTURE_MODES}, got {config.mixture_mode!r}.")
    contributions = torch.matmul(weights, value)  # (B, K, T, d)
    most = contributions.shape[1]
    if not 1 <= config.mixture_top_k <= most:
        raise ValueError(f"`mixture_top_k` is {config.mixture_top_k}, but must be between 1 and `num_senses`, {most}.")
    full = contributions.sum(1)
    # CODEPATH: ablations at inference, of any checkpoint.
    if config.mixture_mode == "uniform":
        mixture = full / contributions.shape[1]
    else:
        norms = contributions.norm(dim=-1)  # (B, K, T)
        kept = torch.zeros_like(norms).scatter_(1, norms.topk(config.mixture_top_k, dim=1).indices, 1.0)
        mixture = (kept.unsqueeze(-1) * contributions).sum(1)
    # CODEPATH: the same.
    if config.mixture_norm_matched:
        tiny = torch.finfo(mixture.dtype).tiny
        mixture = mixture * (full.norm(dim=-1, keepdim=True) / mixture.norm(dim=-1, keepdim=True).clamp_min(tiny))
    return mixture


def causal_sense_mask(attention_mask, query_positions, packed_positions=None, prefix_length=0):
    """
    The mask of the sense weights, as a function of the number of keys.

    Args:
        attention_mask: What the backbone got: `None`, `(B, S)` with 0 at padding, a prepared `(B, 1, T, S)` mask
            (boolean, or added to scores), or a `dict` of prepared masks by layer type.
        query_positions: Index of each query among the backbone's keys, `(T,)`. Comparing indices, not trusting the
            number of keys, stays right with a static cache, which is longer than what it holds.
        packed_positions: Positions `(B, T)` that start again with each of several texts packed in a row: a text does
            not see the others.
        prefix_length: Number of keys that the backbone had before the first word (prefix tuning). They have no
            senses: the first key of the senses is the backbone's at this index.
    """
    if isinstance(attention_mask, dict):
        # Where all layers slide, over a window that is no shorter than the cache, theirs is the full one.
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values()), None))
    if attention_mask is not None and not isinstance(attention_mask, torch.Tensor):
        raise ValueError(
            f"`attention_mask` is a {type(attention_mask).__name__}, which the senses cannot read. "
            "Flex attention makes such masks with a static cache; use a `DynamicCache`, or `sdpa` attention."
        )

    def mask(num_keys):
        key_positions = torch.arange(num_keys, device=query_positions.device) + prefix_length
        causal = (key_positions[None, :] <= query_positions[:, None])[None, None]
        if attention_mask is None and packed_positions is not None:
            text = (packed_positions.diff(prepend=packed_positions[:, :1] - 1) != 1).cumsum(-1)
            return causal & (text[:, None, :, None] == text[:, None, None, :])
        if attention_mask is None:
            return causal
        length = attention_mask.shape[-1]
        columns = attention_mask.index_select(-1, key_positions.clamp_max(length - 1))
        if attention_mask.ndim == 4:
            return (columns if columns.dtype == torch.bool else columns == 0) & (key_positions < length)
        return causal & (columns.bool() & (key_positions < length))[:, None, None, :]

    return mask
