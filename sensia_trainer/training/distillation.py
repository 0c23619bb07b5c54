"""What senses of a pretrained language model are trained with: distillation from the base, and diversity of senses."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import LOGITS_BUDGET, Head
from ..representations import at_least_float32


def sense_diversity(senses: Tensor) -> Tensor:
    """
    How alike the senses of a word are: the mean squared cosine between two different senses of it,

        D = 1 / (K (K - 1)) * sum_{i != j} cos(S_i, S_j)^2,

    which is the penalty ||A A^T - I||_F^2 of Lin et al. (2017, "A Structured Self-attentive Sentence Embedding",
    Section 2.2) on unit vectors, over the number of pairs.

    Args:
        senses (`torch.Tensor` of shape `(..., K, d)`): Senses of words.

    Returns:
        `torch.Tensor`: scalar between 0 (senses at right angles) and 1 (all on one line), float32 at least.

    Raises:
        `ValueError`: for fewer than two senses.
    """
    number = senses.shape[-2]
    if number < 2:
        raise ValueError(f"`senses` has {number} senses a word, but diversity needs two; raise `num_senses`.")
    unit = F.normalize(at_least_float32(senses), dim=-1)
    cosines = unit @ unit.mT
    others = cosines.square().sum((-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return (others / (number * (number - 1))).mean()


class Distilled(NamedTuple):
    """What [`distilled_loss`] returns, scalars: the loss, and without gradients the parts it is made of, in nats."""

    loss: Tensor
    cross_entropy: Tensor
    divergence: Tensor


def distilled_loss(
    states: Tensor,
    base_states: Tensor,
    head: Head,
    shift_labels: Tensor,
    *,
    share: float = 0.5,
    temperature: float = 2.0,
    divisor: Tensor | float | None = None,
) -> Distilled:
    """
    (1 - w) CE + w T^2 KL(base || model) at temperature T, with no more than `LOGITS_BUDGET` of logits at once.

    Args:
        states (`torch.Tensor` of shape `(..., d)`): What the head of the model reads.
        base_states (`torch.Tensor` of shape `(..., d)`): What the same head of the base reads; without gradient.
        head ([`Head`]): The head of both.
        shift_labels (`torch.Tensor` of shape `(...)`, int64): The token that each position predicts; -100: none.
        share (`float`, *optional*, defaults to 0.5): w, between 0 (language modelling) and 1 (distillation alone).
        temperature (`float`, *optional*, defaults to 2.0): T.
        divisor (`torch.Tensor` or `float`, *optional*): Divides the sums; the number of labels by default.

    Returns:
        [`Distilled`]: its divergence is KL(base || model) at temperature T, without the factor T^2.
    """
    labelled = shift_labels != -100
    targets = shift_labels[labelled]
    arguments = states[labelled], base_states[labelled].detach(), head.weight, head.bias, targets
    sums = _DistilledCrossEntropy.apply(*arguments, head.scale, head.softcap, share, temperature)
    count = max(len(targets), 1) if divisor is None else divisor
    return Distilled(*(total / count for total in sums))


class _DistilledCrossEntropy(torch.autograd.Function):
    """The sums behind [`distilled_loss`], block by block; gradients are computed with them."""

    @staticmethod
    def forward(ctx, states, base_states, weight, bias, labels, scale, softcap, share, temperature):
        dtype = states.dtype
        if torch.is_autocast_enabled(states.device.type):
            dtype = torch.get_autocast_dtype(states.device.type)
        wanted = [ctx.needs_input_grad[index] for index in (0, 2, 3)]
        grads = [torch.zeros_like(t) if want else None for t, want in zip((states, weight, bias), wanted, strict=True)]
        total = torch.promote_types(dtype, torch.float32)
        sums = {name: states.new_zeros((), dtype=total) for name in ("cross_entropy", "divergence")}
        rows = max(1, LOGITS_BUDGET // (4 * len(weight)))
        with torch.autocast(states.device.type, enabled=False):
            linear = Head(weight.to(dtype), None if bias is None else bias.to(dtype), scale)
            for start in range(0, len(labels), rows):
                block, target = states[start : start + rows].to(dtype), labels[start : start + rows, None]
                base_block = base_states[start : start + rows]
                # The head of what the senses add, not of the sum: then in bfloat16 both logits are rounded alike, and
                # the divergence, which is small, is not of their rounding.
                added = (states[start : start + rows] - base_block).to(dtype)
                base_logits = linear.logits(base_block.to(dtype)).to(total)
                logits = base_logits + Head(linear.weight, None, scale).logits(added).to(total)
                if softcap is not None:
                    base_logits, logits = (softcap * torch.tanh(each / softcap) for each in (base_logits, logits))
                log_probs = torch.log_softmax(logits, dim=-1)
                sums["cross_entropy"] -= log_probs.gather(1, target).sum()
                soft = torch.log_softmax(logits / temperature, dim=-1)
                base = torch.log_softmax(base_logits / temperature, dim=-1)
                base_probs = base.exp()
                sums["divergence"] += (base_probs * (base - soft)).sum()
                if not any(wanted):
                    continue
                # d CE / d logits = softmax - onehot;  d T^2 KL / d logits = T (softmax_T - base_T)
                grad = log_probs.exp_().mul_(1 - share)
                grad.scatter_add_(1, target, grad.new_full(target.shape, share - 1))
                grad += share * temperature * (soft.exp_() - base_probs)
                if softcap is not None:
                    grad *= 1 - (logits / softcap) ** 2
                grad = (grad * scale).to(dtype)
                if grads[0] is not None:
                    grads[0][start : start + rows] = grad @ linear.weight
                if grads[1] is not None:
                    grads[1] += grad.T @ block
                if grads[2] is not None:
                    grads[2] += grad.sum(0)
        ctx.save_for_backward(*grads)
        loss = (1 - share) * sums["cross_entropy"] + share * temperature**2 * sums["divergence"]
        ctx.mark_non_differentiable(*sums.values())
        return loss, *sums.values()

    @staticmethod
    def backward(ctx, grad_loss, *_):
        states, weight, bias = (g if g is None else g * grad_loss.to(g.dtype) for g in ctx.saved_tensors)
        return states, None, weight, bias, *[None] * 5
