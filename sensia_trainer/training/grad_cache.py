"""Contrastive batches larger than memory: gradients through stored representations, one chunk at a time.

InfoNCE couples every pair of the batch, so its plain backward pass needs the activations of all of them at once, and
gradient accumulation does not help: it adds up gradients of small batches with few negatives. But the loss reaches the
parameters only through the sentence vectors z_i, hence dL/dtheta = sum_i <dL/dz_i, dz_i/dtheta>:

1. compute all z_i, chunk by chunk, without a graph (the state of the random numbers is noted before each chunk);
2. compute L and dL/dz_i on the stored vectors alone;
3. compute each chunk again, with its graph and the same dropout, and send <dL/dz_i, z_i> backward.

Memory is that of one chunk and of (B, d) vectors; the price is one more forward pass. The gradients are those of the
whole batch (Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup").
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def cached_backward(
    forward: Callable[[Any], tuple[Sequence[Tensor], Callable[[], Tensor] | None]],
    chunks: Sequence[Any],
    contrastive_loss: Callable[..., Tensor],
    *,
    backward: Callable[[Tensor], None] = Tensor.backward,
    no_sync: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[Tensor, Tensor]:
    """Accumulates the gradients of `contrastive_loss` over all chunks together, plus each chunk's own extra loss.

    Args:
        forward (`Callable`): `forward(chunk) -> (representations, extra_loss)`. The representations are tensors of
            shape `(b, d)`, always the same number of them; `extra_loss` is a function that computes the loss terms
            which do not couple the pairs (language modelling), scaled so that they may be added up over chunks, or
            `None`. It is called in the second pass only, and whatever is random in it must come after the
            representations.
        chunks (`Sequence`): The parts of the batch, in order.
        contrastive_loss (`Callable`): `contrastive_loss(*representations) -> scalar` of the concatenated `(B, d)`
            representations. It may gather them across processes ([`losses.gather_with_gradient`]).
        backward (`Callable`, *optional*): What sends a loss backward; pass `accelerator.backward` so that the loss
            scale of fp16 applies.
        no_sync (`Callable`, *optional*): Context in which gradients are not averaged over processes, used for all
            chunks but the last; pass `partial(accelerator.no_sync, model)`.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: the contrastive loss and the sum of the extra losses, detached scalars.

    Raises:
        `ValueError`: no chunks.
    """
    if not chunks:
        raise ValueError("`chunks` is empty, but at least one chunk is needed; pass the parts of a non-empty batch.")
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_RandomState())
            parts.append(forward(chunk)[0])
    representations = [torch.cat(column).requires_grad_() for column in zip(*parts, strict=True)]
    sizes = [len(part[0]) for part in parts]

    loss = contrastive_loss(*representations)
    grads = torch.autograd.grad(loss, representations, allow_unused=True, materialize_grads=True)

    extra_total = torch.zeros_like(loss)
    per_chunk = zip(*(grad.split(sizes) for grad in grads), strict=True)
    for i, (chunk, state, chunk_grads) in enumerate(zip(chunks, states, per_chunk, strict=True)):
        with nullcontext() if i == len(chunks) - 1 else no_sync():
            state.restore()
            outputs, extra_loss = forward(chunk)
            surrogate = sum((output * grad).sum() for output, grad in zip(outputs, chunk_grads, strict=True))
            if extra_loss is not None:
                extra = extra_loss()
                extra_total += extra.detach()
                surrogate = surrogate + extra
            backward(surrogate)
    return loss.detach(), extra_total


class _RandomState:
    """The state of torch's random numbers on the CPU and on the current accelerator, if there is one."""

    def __init__(self):
        self.cpu = torch.get_rng_state()
        self.accelerator = _accelerator().get_rng_state() if torch.accelerator.is_available() else None

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            _accelerator().set_rng_state(self.accelerator)


def _accelerator():
    return torch.get_device_module(torch.accelerator.current_accelerator())
