"""What senses of a pretrained language model are trained with: distillation from the base, and diversity of senses."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import LOGITS_BUDGET, Head
from ..representations import at_least_float32


# Rows of logits that all passes over them are made of while they are in the processor's cache.
CACHED_ROWS = 8


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
    """What [`distilled_loss`] returns, scalars: the loss, and without gradients the parts it is made of and the
    cross-entropy of the base, in nats."""

    loss: Tensor
    cross_entropy: Tensor
    divergence: Tensor
    base_cross_entropy: Tensor


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
        sums = states.new_zeros(3, dtype=total)
        rows = max(1, LOGITS_BUDGET // (4 * len(weight)))
        with torch.autocast(states.device.type, enabled=False):
            linear = Head(weight.to(dtype), None if bias is None else bias.to(dtype), scale)
            for start in range(0, len(labels), rows):
                block, target = states[start : start + rows].to(dtype), labels[start : start + rows, None]
                base_block = base_states[start : start + rows]
                # The head of what the senses add, not of the sum: then in bfloat16 both logits are rounded alike, and
                # the divergence, which is small, is not of their rounding.
                added = Head(linear.weight, None, scale).logits((states[start : start + rows] - base_block).to(dtype))
                base_logits, grad = linear.logits(base_block.to(dtype)), added  # each row of which is read once
                for few in (slice(row, row + CACHED_ROWS) for row in range(0, len(target), CACHED_ROWS)):
                    of_few, grad_few = _distil(
                        base_logits[few].to(total),
                        added[few].to(total),
                        target[few],
                        softcap,
                        share,
                        temperature,
                        any(wanted),
                    )
                    sums += of_few
                    if any(wanted):
                        grad[few] = grad_few * scale
                if grads[0] is not None:
                    grads[0][start : start + rows] = grad @ linear.weight
                if grads[1] is not None:
                    grads[1] += grad.T @ block
                if grads[2] is not None:
                    grads[2] += grad.sum(0)
        ctx.save_for_backward(*grads)
        cross_entropy, divergence, base_cross_entropy = sums
        loss = (1 - share) * cross_entropy + share * temperature**2 * divergence
        ctx.mark_non_differentiable(cross_entropy, divergence, base_cross_entropy)
        return loss, cross_entropy, divergence, base_cross_entropy

    @staticmethod
    def backward(ctx, grad_loss, *_):
        states, weight, bias = (g if g is None else g * grad_loss.to(g.dtype) for g in ctx.saved_tensors)
        return states, None, weight, bias, *[None] * 5


def _distil(base_logits, added, target, softcap, share, temperature, with_grad):
    """
    Of some rows of logits, `(R, V)`: the sums of cross-entropy, divergence and cross-entropy of the base, `(3,)`, and
    the gradient of the loss by the logits. The softmax at temperature 1 is the T-th power of the one at temperature T,
    over its sum: one exponential an element, of model and base each, is enough (T >= 1).
    """
    logits = base_logits + added
    if softcap is not None:
        base_logits, logits = (softcap * torch.tanh(each / softcap) for each in (base_logits, logits))
    soft, probs, norm, soft_norm = _softmaxes(logits, temperature)
    base_soft, base_probs, base_norm, base_soft_norm = _softmaxes(base_logits, temperature)
    # log softmax_T of the base less that of the model is (z_base - z) / T plus one number for each row.
    differences = (base_logits - logits).mul_(base_soft).sum(1, keepdim=True) / temperature
    parts = norm - logits.gather(1, target), differences + soft_norm - base_soft_norm
    sums = torch.stack([part.sum() for part in (*parts, base_norm - base_logits.gather(1, target))])
    if not with_grad:
        return sums, None
    # d CE / d logits = softmax - onehot;  d T^2 KL / d logits = T (softmax_T - base_T)
    grad = probs.mul_((1 - share) / probs.sum(1, keepdim=True))
    grad.scatter_add_(1, target, grad.new_full(target.shape, share - 1))
    grad.add_(soft.sub_(base_soft), alpha=share * temperature)
    return sums, grad if softcap is None else grad.mul_(1 - (logits / softcap) ** 2)


def _softmaxes(logits, temperature):
    """The softmax p of z / T, exp(z - max z), and the logarithms of sum(exp(z)) and of sum(exp(z / T)), of shape
    `(R, 1)`. The exponential is (p / max p)^T, which no T makes too small; below 1, where p may be, another one is
    taken."""
    highest, soft = logits.amax(1, keepdim=True), torch.softmax(logits / temperature, dim=-1)
    top = soft.amax(1, keepdim=True)
    probs = (soft / top).pow_(temperature) if temperature >= 1 else (logits - highest).exp_()
    return soft, probs, probs.sum(1, keepdim=True).log() + highest, highest / temperature - top.log()
