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
What Backpacks are made from: published checkpoints (stanfordnlp/backpack-gpt2 and files of the same layout), and
pretrained language models.
"""

import inspect
import json
import re
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Transpose, WeightConverter, WeightRenaming
from transformers.utils import find_adapter_config_file

from .configuration_backpack import is_flat_layout, refuse_unfit_backbone


# Under this `model_type`, while it is loaded, a Backpack reads the published layout by the library's own mapping.
PUBLISHED = "backpack-published"
register_checkpoint_conversion_mapping(
    PUBLISHED,
    [
        WeightRenaming("gpt2_model", "backbone"),
        # Other names of the same tensors; a file may carry any of them.
        WeightRenaming("word_embeddings", "backbone.wte"),
        WeightRenaming("^lm_head", "backpack.backbone.wte"),
        WeightRenaming("position_embeddings", "backbone.wpe"),
        # Matrices of the sense network are stored as `Conv1D` (in, out); ours are `nn.Linear` (out, in).
        *(
            WeightConverter(f"sense_network.{name}.weight", f"sense_network.{name}.weight", [Transpose(0, 1)])
            for name in ("block.mlp.c_fc", "block.mlp.c_proj", "final_mlp.c_fc", "final_mlp.c_proj")
        ),
    ],
    overwrite=True,  # the file is run once for each copy of it that is loaded
)
MASKS = re.compile(r"\.attn(\.attention)?\.(masked_)?bias$")
HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def is_published_layout(pretrained_model_name_or_path, **kwargs):
    """
    Whether a folder or Hub repository holds a Backpack in the published layout, of which `AutoModelForCausalLM` makes
    a GPT-2 with random weights: load it with [`BackpackForCausalLM`]. An adapter is what its base is. `False` where no
    configuration can be read.

    Args:
        pretrained_model_name_or_path (`str`): Folder or Hub id.
        kwargs: Hub arguments (`revision`, `token`, `cache_dir`, …); others are ignored.
    """
    hub = {key: kwargs[key] for key in HUB_KEYS if kwargs.get(key) is not None}
    try:
        config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
    except OSError:
        config = {}
    if config:
        return is_flat_layout(config)
    base = base_of_adapter(pretrained_model_name_or_path, **hub)
    hub.pop("revision", None)  # which is the adapter's
    return base is not None and is_published_layout(base, **hub)


def base_of_adapter(name, **kwargs) -> str | None:
    """The base model that a folder or Hub repository of an adapter names; `None` for what is no adapter."""
    hub = {key: kwargs[key] for key in HUB_KEYS if kwargs.get(key) is not None}
    file = find_adapter_config_file(name, **hub)
    return json.loads(Path(file).read_text(encoding="utf-8"))["base_model_name_or_path"] if file else None


def refuse_nano_backpack(state_dict):
    """Raise a `ValueError` for weights of nanoBackpackLM and its relatives, told by their names."""
    if any("sense_vector_layer." in key or "contextualization_layer." in key for key in state_dict):
        raise ValueError(
            "These are weights of the nanoBackpackLM family, a different architecture under the same name: its sense "
            "network is normalised elsewhere, its senses are laid out the other way and its weights are not scaled by "
            "1/sqrt(m). They cannot be loaded here; use that project's own code."
        )


def set_inverse_layer_scaling(model, enabled):
    """
    Switch GPT-2's division of attention scores by the layer number on or off, in the model and its configuration.

    The flag of a published configuration is not proof that a checkpoint was trained that way: releases 4.42 to 5.3
    of transformers ignored it in their default attention.

    Raises:
        `ValueError`: for a backbone that is no GPT-2.
    """
    attentions = [module for module in model.modules() if hasattr(module, "scale_attn_by_inverse_layer_idx")]
    if not attentions:
        raise ValueError(
            "Only a GPT-2 backbone scales attention by the layer; this one is "
            f"`model_type`={model.config.backbone_config.model_type!r}."
        )
    for module in attentions:
        module.scale_attn_by_inverse_layer_idx = enabled
        module.scaling = module.head_dim**-0.5 if module.scale_attn_weights else 1.0
        module.scaling /= module.layer_idx + 1 if enabled else 1
    model.config.backbone_config.scale_attn_by_inverse_layer_idx = enabled


@torch.no_grad()
def inverse_layer_losses(model, input_ids, attention_mask=None):
    """
    Cross-entropy (nats a token) of a text with and without the inverse-layer factor. The lower one tells which setting
    the checkpoint was trained with; the model is left as it was.

    Args:
        model (`BackpackForCausalLM`): A Backpack on a GPT-2.
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): A text the model should know.

    Returns:
        `dict[bool, float]`: the loss by setting.
    """
    was = model.config.backbone_config.scale_attn_by_inverse_layer_idx
    labels = input_ids if attention_mask is None else input_ids.masked_fill(attention_mask == 0, -100)
    losses = {}
    for enabled in (True, False):
        set_inverse_layer_scaling(model, enabled)
        losses[enabled] = model(input_ids, attention_mask=attention_mask, labels=labels).loss.item()
    set_inverse_layer_scaling(model, was)
    return losses


def wrong_weights(info):
    """
    What is wrong with the weights of a file, `{kind: sorted names}`: the loading info of `from_pretrained` without the
    masks of attention that old releases of transformers saved with the weights of GPT-2 and GPT-Neo.
    """
    kinds = {kind: sorted(map(str, keys)) for kind, keys in info.items()}
    unexpected = [name for name in kinds.get("unexpected_keys", ()) if not MASKS.search(name)]
    return {kind: names for kind, names in (kinds | {"unexpected_keys": unexpected}).items() if names}


def load_language_model(pretrained_model_name_or_path, **kwargs):
    """
    A pretrained decoder-only language model whose decoder and head a Backpack can take over.

    Args:
        pretrained_model_name_or_path (`str` or `PreTrainedModel`): Folder, Hub id, or a model in memory.
        kwargs: Arguments of its `from_pretrained`. The precision is float32 unless `dtype` says otherwise.

    Raises:
        `ValueError`: for a Backpack, a model that is not a decoder of text, quantised weights, missing or unexpected
        weights, and a head that is not one linear layer over the vocabulary of the embeddings.
    """
    given = pretrained_model_name_or_path
    if hasattr(given, "peft_config"):  # old releases of peft leave it in a model whose adapter was merged
        if hasattr(given, "get_base_model") or any(hasattr(layer, "base_layer") for layer in given.modules()):
            refuse_adapters(given)
    if isinstance(pretrained_model_name_or_path, PreTrainedModel):
        model = pretrained_model_name_or_path
        refuse_unfit_model(model.config.to_dict(), model.config)
    else:
        read = {key: kwargs[key] for key in (*HUB_KEYS, "gguf_file") if kwargs.get(key) is not None}
        config_dict, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **read)
        refuse_unfit_model(config_dict)
        if "torch_dtype" in kwargs:  # as it was called before
            kwargs["dtype"] = kwargs.pop("torch_dtype")
        kwargs = {"dtype": torch.float32} | kwargs | {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = AutoModelForCausalLM.from_pretrained(pretrained_model_name_or_path, **kwargs)
        refuse_unfit_model(model.config.to_dict(), model.config)
        vars(model.config).pop("quantization_config", None)  # of GGUF, which is dequantised when it is read
        wrong = wrong_weights(info)
        if wrong:
            raise ValueError(
                f"The weights of {pretrained_model_name_or_path!r} do not fill a {type(model).__name__}: {wrong}. "
                "Repair the checkpoint; or load the model yourself, if these weights may be left out or drawn at "
                "random, and pass the model instead of its name."
            )
    if getattr(model, "_hf_peft_config_loaded", False):
        refuse_adapters(model)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or not has_known_decoder(model):
        raise ValueError(
            f"A {type(model).__name__} is not a decoder of `AutoModel` that keeps keys and values, with one linear "
            "layer as its head: a Backpack cannot take it over. Models of the Llama, Mistral, Qwen, Gemma, GPT-2, "
            "GPT-NeoX, OPT, Phi, OLMo and BLOOM families, among others, can be."
        )
    sizes = (model.config.vocab_size, embeddings.num_embeddings, head.out_features)
    if len(set(sizes)) > 1:
        raise ValueError(
            f"The configuration, the word embeddings and the head of the language model have {sizes} words; they must "
            "have as many. Call its `resize_token_embeddings` and save it again."
        )
    return model


def refuse_adapters(model):
    """Raise a `ValueError`: senses are made for the weights of a model, not for an adapter beside them."""
    raise ValueError(
        f"This {type(model).__name__} has an adapter beside its weights: merge it first "
        "(`PeftModel.from_pretrained(base, adapter).merge_and_unload()`), and save what that gives."
    )


def has_known_decoder(language_model):
    """Whether the decoder of a language model is what `AutoModel` builds from its configuration, with a cache."""
    decoder = language_model.base_model
    parameters = inspect.signature(decoder.forward).parameters
    if decoder is language_model or language_model._is_stateful:  # Mamba and its hybrids
        return False
    if "inputs_embeds" not in parameters or not {"past_key_values", "cache"} & parameters.keys():
        return False
    with torch.device("meta"):
        same = AutoModel.from_config(language_model.config)
    return type(same) is type(decoder) and same.state_dict().keys() == decoder.state_dict().keys()


def refuse_unfit_model(config_dict, config=None):
    """Raise a `ValueError` for configurations of Backpacks, of quantised models, and of others than decoders."""
    if is_flat_layout(config_dict) or config_dict.get("model_type") == "backpack":
        raise ValueError(
            "This model has senses already: it is a Backpack. Load it with `from_pretrained`; senses are made only "
            "for language models without."
        )
    if config_dict.get("is_encoder_decoder"):
        raise ValueError(
            f"This is an encoder-decoder model ({config_dict.get('model_type')}), and a Backpack weighs the senses of "
            "one text: give a decoder-only language model."
        )
    quantisation = config_dict.get("quantization_config")
    if quantisation is not None and "gguf" not in str(quantisation.get("quant_method")):
        raise ValueError(
            f"The weights are quantised ({quantisation.get('quant_method')}), so that the model could not be kept "
            "exact. Give the checkpoint it was quantised from, or dequantise it first (`model.dequantize()`)."
        )
    if config is not None:
        refuse_unfit_backbone(config)


@torch.no_grad()
def copy_module(source, target):
    """Copy parameters, and buffers in the precision they have, be they saved with a model or not."""
    target.load_state_dict(source.state_dict())
    for name, buffer in source.named_buffers():
        target.get_buffer(name).data = buffer.clone()


@torch.no_grad()
def refuse_inexact(model, language_model):
    """
    Raise a `ValueError` unless a fresh Backpack with a closed gate equals the language model it was made from, to the
    bit, on a few of its words, and unless these are read from left to right.
    """
    device = language_model.get_input_embeddings().weight.device
    input_ids = torch.arange(16, device=device).reshape(2, 8) % model.config.vocab_size
    training = language_model.training
    expected = language_model.eval()(input_ids, use_cache=False).logits
    changed = torch.cat([input_ids[:, :-1], input_ids[:, -1:] ^ 1], dim=1)
    leaked = language_model(changed, use_cache=False).logits[:, :-1] - expected[:, :-1]
    language_model.train(training)
    if leaked.abs().max() > 1e-3 * expected.abs().max():
        raise ValueError(
            f"{type(language_model).__name__} is bidirectional: earlier words see later ones, which a Backpack has to "
            "predict. Give a decoder."
        )
    model.to(device).eval()
    model(input_ids[:, :2])  # with the cache that generation takes, which refuses those of other kinds
    logits = model(input_ids, use_cache=False).logits
    if not torch.equal(logits, expected):
        raise ValueError(
            f"With its gate closed, the Backpack is not the {type(language_model).__name__} it was made from (largest "
            f"difference of logits {(logits - expected).abs().max():.3g}): that family does something to its states "
            "or logits that is unknown here. Known are a linear head with or without bias, "
            "`final_logit_softcapping`, `logit_scale` and `logits_scaling`."
        )
