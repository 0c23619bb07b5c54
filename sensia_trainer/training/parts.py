"""
What of a model is trained: everything, its senses, or its senses and low-rank updates of the rest.

`senses` are the sense network, the sense weights and the gate, where there is one. `lora` adds to each matrix W of the
backbone (not to the stacked ones of mixtures of experts) a product (alpha / r) B A (Hu et al., 2022) with A
`(r, d_in)` and B `(d_out, r)`, B zero at the start; after training it is added to W, so that what is saved is an
ordinary model. With either, words that the model is given before training learn as well: their rows of the embeddings,
the head and its bias. All other rows, and everything else of the model, stay as they are, to the bit.
"""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging


logger = logging.get_logger(__name__)

SENSE_MODULES = ("sense_network", "sense_weight_net")


def choose_parts(model, parts, new_words=range(0)):
    """
    Let of a model be trained what `parts` name; its weights are not changed.

    Args:
        model (`PreTrainedModel`): A causal language model, with senses or without; changed in place.
        parts ([`TrainedParts`]): With `train="all"` nothing is done.
        new_words (`range`): Ids of the words it was given, whose rows are trained beside.

    Raises:
        `ValueError`: for `train="senses"` of a model that has none.
    """
    if parts.train == "all":
        return
    backpack = getattr(model, "backpack", None)
    if parts.train == "senses" and backpack is None:
        raise ValueError(
            f"`train` is 'senses', but {type(model).__name__} has none: set it to 'lora' or 'all', or give the model "
            "senses (`sensia induce`, or `induce_steps`)."
        )
    model.requires_grad_(False)
    full = parts.train == "senses" or parts.lora_senses == "full"
    if parts.train == "lora":
        _add_lora(model, parts, SENSE_MODULES if full else ())
    if backpack is not None:
        for name in (*SENSE_MODULES * full, "residual_gate"):
            if (module := getattr(backpack, name)) is not None:
                module.requires_grad_(True)
    if new_words:
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        own = getattr(backpack, "sense_embeddings", None)
        weights = (embeddings.weight, head.weight, getattr(head, "bias", None), None if own is None else own.weight)
        for weight in {id(weight): weight for weight in weights if weight is not None}.values():
            _train_rows(weight, new_words)


def trained_in_part(model) -> list[str]:
    """Names of the parameters of which some rows are trained and the others stay as they are. No optimizer may decay
    them."""
    return [name for name, parameter in model.named_parameters() if hasattr(parameter, "trained_rows")]


def has_updates(model) -> bool:
    """Whether `model` has low-rank updates that are not merged."""
    return any(_is_updated(module) for module in model.modules())


def merge_updates(model):
    """Add the low-rank updates of a model, if it has any, to its weights: it is an ordinary model again."""
    for name, module in list(model.named_modules()):
        if _is_updated(module):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
            vars(model).pop("peft_config", None)
            vars(model).pop("_hf_peft_config_loaded", None)  # with it nothing but the updates would be saved
    return model


def _is_updated(module):
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")


def _add_lora(model, parts, left_out):
    from peft import LoraConfig, inject_adapter_in_model  # an extra

    convolutions = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv1d)}
    stacked = [n for n, p in model.named_parameters() if p.ndim == 3 and id(p) not in convolutions]
    if stacked:
        logger.warning(
            f"`train` is 'lora': {len(stacked)} weights of mixtures of experts ({stacked[0]}, …), which are no "
            "matrices but stacks of them, get no updates and stay as they are. `train: all` trains them."
        )
    head = model.get_output_embeddings()
    matrices = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not set(name.split(".")) & set(left_out)
    }
    config = LoraConfig(
        r=parts.lora_r,
        lora_alpha=parts.lora_alpha,
        lora_dropout=parts.lora_dropout,
        target_modules=list(matrices),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in matrices.values()),
    )
    # Into the model, which keeps its class: checkpoints hold the whole of it, as with any other training.
    inject_adapter_in_model(config, model)


def _train_rows(weight, rows):
    def of_rows(grad):
        numbers = torch.arange(len(grad), device=grad.device)
        others = (numbers < rows.start) | (numbers >= rows.stop)
        return grad.masked_fill(others.view(-1, *[1] * (grad.ndim - 1)), 0.0)

    weight.requires_grad_(True)
    weight.trained_rows = rows
    # On the gradient of one process, before DDP takes the mean: a hook after that would come too early or too late.
    weight.register_hook(of_rows)
