"""What senses are compared with: sense networks that learned nothing, and the model without its senses."""

import copy
from contextlib import contextmanager

import torch


SENSE_PATH = ("sense_network.", "sense_weight_net.")


def random_sense_path(model, seed=0):
    """The same model with fresh sense and sense-weight networks; backbone, embeddings, head and gate stay.

    Args:
        model ([`BackpackForCausalLM`]): Left as it is.
        seed (`int`): Of the weights; the random state of the process is left alone.

    Returns:
        Another [`BackpackForCausalLM`] on the same device, in evaluation mode.
    """
    weight = model.get_input_embeddings().weight
    with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
        torch.manual_seed(seed)
        control = type(model)(copy.deepcopy(model.config)).to(weight)
    kept = {name: value for name, value in model.state_dict().items() if not _is_sense_path(name)}
    control.load_state_dict(kept, strict=False)
    return control.eval()


def _is_sense_path(name: str) -> bool:
    return name.removeprefix("backpack.").startswith(SENSE_PATH)


def has_gate(model) -> bool:
    """Whether senses were added to a language model, which then predicts without them as well."""
    return bool(getattr(model.config, "residual_gate", False))


@contextmanager
def closed_gate(model):
    """Within this context the senses add nothing: the language model alone predicts. `ValueError` without a gate."""
    if not has_gate(model):
        raise ValueError("This Backpack predicts from its senses alone: without them there is no prediction.")
    gate = next(model.backpack.residual_gate.parameters())
    opened = gate.detach().clone()
    try:
        with torch.no_grad():
            gate.zero_()
        yield model
    finally:
        with torch.no_grad():
            gate.copy_(opened)
