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
"""Reading published Backpack checkpoints: stanfordnlp/backpack-gpt2 and files of the same layout."""

import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from .configuration_backpack import is_published_layout, nest_published_config


WORD_EMBEDDINGS = "backpack.backbone.wte.weight"
POSITION_EMBEDDINGS = "backpack.backbone.wpe.weight"
# Published names of one tensor each; a file may carry any of them.
ALIASES = {
    "backpack.gpt2_model.wte.weight": WORD_EMBEDDINGS,
    "backpack.word_embeddings.weight": WORD_EMBEDDINGS,
    "lm_head.weight": WORD_EMBEDDINGS,
    "backpack.gpt2_model.wpe.weight": POSITION_EMBEDDINGS,
    "backpack.position_embeddings.weight": POSITION_EMBEDDINGS,
}
# Buffers that old releases of transformers saved with GPT-2.
STALE_SUFFIXES = (".attn.bias", ".attn.masked_bias")
HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def refuse_nano_backpack(state_dict):
    """Raise a `ValueError` for weights of nanoBackpackLM and its relatives, told by their names."""
    if any("sense_vector_layer." in key or "contextualization_layer." in key for key in state_dict):
        raise ValueError(
            "These are weights of the nanoBackpackLM family, a different architecture under the same name: its sense "
            "network is normalised elsewhere, its senses are laid out the other way and its weights are not scaled by "
            "1/sqrt(m). They cannot be loaded here; use that project's own code."
        )


def convert_published_state_dict(state_dict):
    """
    Rename published weights to ours.

    Args:
        state_dict (`dict[str, torch.Tensor]`): Names of stanfordnlp/backpack-gpt2, with any one of the aliases of the
            tied embeddings, with or without stale attention buffers.

    Returns:
        `dict[str, torch.Tensor]` with our names. Matrices of the sense network are transposed: they were stored as
        `Conv1D` (in, out), ours are `nn.Linear` (out, in).

    Raises:
        `ValueError`: for weights of nanoBackpackLM, another architecture, and for missing embeddings.
    """
    refuse_nano_backpack(state_dict)
    converted = {}
    for key, tensor in state_dict.items():
        if key in ALIASES:
            converted.setdefault(ALIASES[key], tensor)
        elif key.endswith(STALE_SUFFIXES) and "c_attn" not in key:
            continue
        elif key.startswith("backpack.gpt2_model."):
            converted[key.replace("gpt2_model", "backbone", 1)] = tensor
        elif key.startswith("backpack.sense_network.") and tensor.ndim == 2:
            converted[key] = tensor.t().contiguous()
        else:
            converted[key] = tensor
    for name in (WORD_EMBEDDINGS, POSITION_EMBEDDINGS):
        if name not in converted:
            accepted = sorted(alias for alias, target in ALIASES.items() if target == name)
            raise ValueError(f"The checkpoint has none of {accepted}: it is no Backpack of the published layout.")
    return converted


def published_checkpoint(pretrained_model_name_or_path, **kwargs):
    """
    Arguments of [`BackpackConfig`] and the converted weights of a published checkpoint; `None` for other layouts.

    Args:
        pretrained_model_name_or_path (`str`): Folder or Hub id.
        kwargs: Hub arguments (`revision`, `token`, `cache_dir`, …); others are ignored.
    """
    hub = {key: kwargs[key] for key in HUB_KEYS if kwargs.get(key) is not None}
    config_dict, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
    if not is_published_layout(config_dict):
        return None
    state_dict = read_weights(pretrained_model_name_or_path, hub)
    return nest_published_config(config_dict), convert_published_state_dict(state_dict)


def read_weights(pretrained_model_name_or_path, hub):
    """The state dict of a folder or repository: safetensors or .bin (weights only), in one file or in shards."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        for file in (name, f"{name}.index.json"):
            path = cached_file(pretrained_model_name_or_path, file, _raise_exceptions_for_missing_entries=False, **hub)
            if path is None:
                continue
            if file == name:
                return read_file(path)
            shards, _ = get_checkpoint_shard_files(pretrained_model_name_or_path, path, **hub)
            return {key: tensor for shard in shards for key, tensor in read_file(shard).items()}
    raise ValueError(
        f"{pretrained_model_name_or_path} has neither `model.safetensors` nor `pytorch_model.bin`, whole or sharded; "
        "a published Backpack has one of them."
    )


def read_file(path):
    if path.endswith(".safetensors"):
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
