"""Senses for a pretrained language model: a residual sense path behind a gate that starts at zero.

logits = head(b + g m), with b the final state of the language model, m the mixture of its senses and g the gate: at
g = 0 the model is the language model, to the bit. Trained are the senses, their weights and the gate, on text of the
source language, by

    L = (1 - w) CE + w T^2 KL(base || model) + w_diversity D                    (distillation: Hinton et al., 2015)

The base is the model itself without its sense path, so distilling from it takes one more product with the head and no
second model. ("Sense Representations are Inducible Interfaces", arXiv 2605.28669, induces senses this way.)
"""

from collections import Counter
from dataclasses import dataclass, field
from math import exp, inf
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import TrainingArguments
from transformers.utils import logging

from .losses import LOGITS_BUDGET, Head, head_of, next_token_loss
from .representations import at_least_float32, sense_entropy, sense_probs
from .training.checkpointing import ResumableTrainer


logger = logging.get_logger(__name__)


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
        ValueError: for fewer than two senses.
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
            head = Head(weight.to(dtype), None if bias is None else bias.to(dtype), scale, softcap)
            for start in range(0, len(labels), rows):
                block, target = states[start : start + rows].to(dtype), labels[start : start + rows, None]
                logits = head.logits(block).to(total)
                log_probs = torch.log_softmax(logits, dim=-1)
                sums["cross_entropy"] -= log_probs.gather(1, target).sum()
                soft = torch.log_softmax(logits / temperature, dim=-1)
                base_logits = head.logits(base_states[start : start + rows].to(dtype)).to(total)
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
                    grads[0][start : start + rows] = grad @ head.weight
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


# ---- The trainer ----

AMBIGUOUS_WORDS = "bank bat cell charge court field light match rock scale seal spring".split()
STUCK_GATE = 1e-4
SENSE_TEMPERATURE = 0.7  # of the sense probabilities whose entropy is watched, as in the paper


@dataclass
class InductionConfig(TrainingArguments):
    """
    Configuration of [`InductionTrainer`]: the fields of `TrainingArguments` and those of the loss.

    > Defaults that differ from `TrainingArguments`: `learning_rate=2e-4`, `weight_decay=0.1`, `warmup_steps=0.02` (a
    > share), `lr_scheduler_type="cosine"`, `max_steps=40_000` (as published), `seed=1234`, `use_cache=True`,
    > `remove_unused_columns=False`.

    Raises:
        ValueError: for values outside what a field's help allows.
    """

    distill_share: float = field(
        default=0.5, metadata={"help": "Share of distillation from the base in the loss; the rest is cross-entropy."}
    )
    distill_temperature: float = field(default=2.0, metadata={"help": "Temperature of the distillation, positive."})
    diversity_weight: float = field(
        default=0.005, metadata={"help": "Weight of the mean squared cosine between the senses of a word."}
    )
    gate_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the gate (no weight decay); ten times `learning_rate` by default."},
    )
    train_backbone: bool = field(default=False, metadata={"help": "Whether the backbone is trained as well."})
    train_embeddings: bool = field(default=False, metadata={"help": "Whether the word embeddings are trained."})
    train_head: bool = field(
        default=False, metadata={"help": "Whether the head is trained; where it is tied, as the word embeddings."}
    )
    learning_rate: float = 2e-4
    weight_decay: float = 0.1
    warmup_steps: float = 0.02
    lr_scheduler_type: str = "cosine"
    max_steps: int = 40_000
    seed: int = 1234
    use_cache: bool = True
    remove_unused_columns: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name, low, high in (("distill_share", 0, 1), ("diversity_weight", 0, inf)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must lie between {low} and {high}.")
        if not self.distill_temperature > 0:
            raise ValueError(f"`distill_temperature` is {self.distill_temperature}, but must be positive; 2 is usual.")
        if self.gate_learning_rate is None:
            self.gate_learning_rate = 10 * self.learning_rate
        if not self.gate_learning_rate > 0:
            raise ValueError(f"`gate_learning_rate` is {self.gate_learning_rate}: the gate would stay at 0. Raise it.")
        if self.train_backbone and self.distill_share > 0:
            raise ValueError(
                "`train_backbone` changes the base that `distill_share` distils from. Set `distill_share` to 0, or "
                "leave the backbone frozen."
            )


def choose_trained(model, args: InductionConfig) -> None:
    """
    Let the sense path be trained, and of the language model what `args` name.

    Raises:
        ValueError: for a model without a gate, and for a tied head and word embeddings that are to differ.
    """
    gate = getattr(getattr(model, "backpack", None), "residual_gate", None)
    if gate is None:
        raise ValueError(
            f"{type(model).__name__} has no residual gate, so that there is nothing to induce: give a causal language "
            "model without senses, or a model made by `BackpackForCausalLM.from_backbone`."
        )
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embeddings is head and args.train_embeddings != args.train_head:
        raise ValueError(
            f"`train_embeddings` is {args.train_embeddings} and `train_head` is {args.train_head}, but the head of "
            "this model is its word embeddings; set both alike."
        )
    model.requires_grad_(True)
    model.backpack.backbone.requires_grad_(args.train_backbone)
    model.get_output_embeddings().requires_grad_(args.train_head)
    model.get_input_embeddings().requires_grad_(args.train_embeddings)


class InductionTrainer(ResumableTrainer):
    """
    [`~transformers.Trainer`] of the sense path of a language model.

    Args:
        model ([`BackpackForCausalLM`]): With a residual gate; what is trained of it follows `args`.
        args ([`InductionConfig`]): Every number of the loss.
        train_dataset, eval_dataset (`datasets.Dataset`): Blocks of tokens, in a column `input_ids`.
        processing_class: The model's tokenizer.
        kwargs: What else [`~transformers.Trainer`] takes.

    Raises:
        ValueError: as [`choose_trained`].
    """

    def __init__(self, model, args, **kwargs):
        choose_trained(model, args)
        super().__init__(model, args, data_collator=stack_blocks, **kwargs)
        # Every batch holds as many labels: the mean of means is the mean.
        self.model_accepts_loss_kwargs = False
        self._sums = Counter()

    def create_optimizer(self, model=None):
        """The gate in a group of its own: another rate, no weight decay."""
        if self.optimizer is not None:
            return self.optimizer
        model = self.model if model is None else model
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
        decayed = set(self.get_decay_parameter_names(model))
        groups = {"weights": [], "undecayed": [], "gate": []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                group = "gate" if "residual_gate" in name else "weights" if name in decayed else "undecayed"
                groups[group].append(parameter)
        self.optimizer = kind(
            [
                {"params": groups["weights"], "weight_decay": self.args.weight_decay},
                {"params": groups["undecayed"], "weight_decay": 0.0},
                {"params": groups["gate"], "weight_decay": 0.0, "lr": self.args.gate_learning_rate},
            ],
            **settings,
        )
        return self.optimizer

    def forward(self, model, input_ids):
        """One pass over blocks `(B, T)`; the loss takes the head where a label wants it."""
        return model(input_ids=input_ids, use_cache=False, logits_to_keep=1, output_senses=True)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        input_ids = inputs["input_ids"]
        outputs = self.forward(model, input_ids)
        head = head_of(self.accelerator.unwrap_model(model))
        distilled = distilled_loss(
            outputs.last_hidden_state,
            outputs.backbone_last_hidden_state,
            head,
            next_tokens(input_ids),
            share=self.args.distill_share,
            temperature=self.args.distill_temperature,
        )
        diversity = sense_diversity(senses_of_distinct(input_ids, outputs.senses))
        loss = distilled.loss + self.args.diversity_weight * diversity
        self._sums.update(
            calls=1,
            cross_entropy=float(distilled.cross_entropy),
            divergence=float(distilled.divergence),
            diversity=float(diversity),
            contribution=float(contribution(outputs)),
        )
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, start_time=None):
        """Adds the parts of the loss (means over the logged steps), the gate, and an alarm for one that is stuck."""
        if "loss" in logs and self._sums["calls"]:
            names = sorted(set(self._sums) - {"calls"})
            sums = torch.tensor([[self._sums[name] for name in names]], device=self.args.device)
            means = self.accelerator.gather(sums).mean(0) / self._sums["calls"]
            gate = float(self._gate())
            logs |= dict(zip(names, means.tolist(), strict=True)) | {"gate": gate}
            self._sums.clear()
            if abs(gate) < STUCK_GATE and self.state.global_step > self.args.get_warmup_steps(self.state.max_steps):
                logger.warning(
                    f"Step {self.state.global_step}: the gate is {gate:.2e}, so that the senses do nothing yet. If it "
                    "stays there, raise `gate_learning_rate`."
                )
        super().log(logs, start_time)

    def _gate(self):
        gate = self.accelerator.unwrap_model(self.model).backpack.residual_gate.weight
        return gate.full_tensor() if hasattr(gate, "full_tensor") else gate

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """
        Held-out blocks: `perplexity` of the model and `base_perplexity` of the language model it was made from,
        `divergence` (nats), `contribution` |g m| / |b|, `gate`, `sense_entropy` (nats), and `ambiguous_cosine`, the
        mean cosine between different senses of [`AMBIGUOUS_WORDS`].
        """
        model, rows = self.model.eval(), []
        head = head_of(self.accelerator.unwrap_model(model))
        loader = self.get_eval_dataloader(self.eval_dataset if eval_dataset is None else eval_dataset)
        for batch in tqdm(loader, desc="evaluating", disable=self.args.disable_tqdm):
            input_ids = batch["input_ids"].to(self.args.device)
            outputs, labels = self.forward(model, input_ids), next_tokens(input_ids)
            probs, values = sense_probs(outputs.senses, temperature=SENSE_TEMPERATURE), []
            for row in range(len(input_ids)):
                states = outputs.last_hidden_state[row], outputs.backbone_last_hidden_state[row]
                parts = distilled_loss(*states, head, labels[row], temperature=1.0)
                base = next_token_loss(states[1], head, labels[row])
                entropy = sense_entropy(probs[row], torch.ones_like(input_ids[row]))
                added = contribution(outputs, row)
                values.append(torch.stack([parts.cross_entropy, base, parts.divergence, entropy, added]))
            rows.append(self.accelerator.gather_for_metrics(torch.stack(values)))
        means = torch.cat(rows).double().mean(0).tolist()
        names = ("cross_entropy", "base_cross_entropy", "divergence", "sense_entropy", "contribution")
        metrics = dict(zip(names, means, strict=True))
        metrics |= {"perplexity": exp(metrics["cross_entropy"]), "base_perplexity": exp(metrics["base_cross_entropy"])}
        metrics |= {"gate": float(self._gate()), "ambiguous_cosine": self.ambiguous_cosine()}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def ambiguous_cosine(self) -> float | None:
        """Mean cosine between different senses of those of [`AMBIGUOUS_WORDS`] that are one token; `None` without a
        tokenizer or such a word."""
        ids = one_token_words(self.processing_class, AMBIGUOUS_WORDS) if self.processing_class else {}
        if not ids:
            return None
        senses = self.accelerator.unwrap_model(self.model).get_senses(torch.tensor(list(ids.values())))
        unit = F.normalize(senses.float(), dim=-1)
        cosines, number = unit @ unit.mT, unit.shape[-2]
        others = cosines.sum((-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).sum(-1)
        return float((others / (number * (number - 1))).mean())


def stack_blocks(rows) -> dict[str, Tensor]:
    """Blocks of equal length as one batch, `input_ids` `(B, T)`."""
    return {"input_ids": torch.tensor([row["input_ids"] for row in rows])}


def next_tokens(input_ids: Tensor) -> Tensor:
    """The token that each position of blocks `(B, T)` predicts, -100 for the last."""
    return F.pad(input_ids[:, 1:], (0, 1), value=-100)


def senses_of_distinct(input_ids: Tensor, senses: Tensor) -> Tensor:
    """Senses `(N, K, d)` of the N distinct tokens among `input_ids` `(B, T)`, from `senses` `(B, T, K, d)`."""
    tokens, inverse = input_ids.flatten().unique(return_inverse=True)
    first = inverse.new_full((len(tokens),), len(inverse)).scatter_reduce_(
        0, inverse, torch.arange(len(inverse), device=inverse.device), "amin"
    )
    return senses.flatten(0, 1)[first]


def contribution(outputs, row=slice(None)) -> Tensor:
    """|g m| / |b|, the length of what the senses add over that of the state they are added to, mean over positions."""
    base = outputs.backbone_last_hidden_state[row].detach()
    added = outputs.last_hidden_state[row].detach() - base
    return (added.norm(dim=-1) / base.norm(dim=-1)).mean()


def one_token_words(tokenizer, words) -> dict[str, int]:
    """The words that, behind a space, are one token of the tokenizer, with its id."""
    ids = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words}
    return {word: tokens[0] for word, tokens in ids.items() if len(tokens) == 1}
