"""Senses for a pretrained language model: a residual sense path behind a gate that starts at zero.

logits = head(b + g m), with b the final state of the language model, m the mixture of its senses and g the gate: at
g = 0 the model is the language model, to the bit. Trained are the senses, their weights and the gate, on text of the
source language, by

    L = (1 - w) CE + w T^2 KL(base || model) + w_mixture CE(head(m)) + w_diversity D

(distillation: Hinton et al., 2015). The third term is the loss of a Backpack (Hewitt et al., 2023, Section 2), whose
senses alone predict the next word: without it they learn what the language model lacks, which is little, and much the
same for every word. The base is the model itself without its sense path, so distilling from it takes one more product
with the head and no second model. ("Sense Representations are Inducible Interfaces", arXiv 2605.28669, induces senses
by the other terms.)
"""

from collections import Counter
from math import exp

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.utils import logging

from modeling_backpack import BackpackForCausalLM

from .losses import head_of, next_token_loss
from .representations import in_float64, sense_entropy, sense_probs
from .training.checkpointing import ResumableTrainer
from .training.distillation import distilled_loss, sense_diversity
from .training.estimate import induction_head_products
from .training.settings import InductionConfig
from .utils.models import load_config, load_model


logger = logging.get_logger(__name__)


AMBIGUOUS_WORDS = "bank bat cell charge court field light match rock scale seal spring".split()
SHOWN_AMONG = 4096  # frequent tokens, for a card
STUCK_GATE = 1e-4
GATE_BLOCKS, GATE_SHARE = 32, 50  # blocks that tell how far the gate may be opened: so many, at most one of so many
DOUBLINGS = HALVINGS = 10  # of the gate; beyond 2^10 and below 2^-10 nothing is tried
SENSE_TEMPERATURE = 0.7  # of the sense probabilities whose entropy is watched, as in the paper


def with_senses(name_or_path: str, **config_kwargs):
    """
    The model to induce: a language model with fresh senses behind a closed gate, or one that was begun already.

    Args:
        name_or_path (`str`): Hub id or folder.
        config_kwargs: Fields of `BackpackConfig`, for fresh senses.

    Raises:
        `ValueError`: for a Backpack that predicts from senses alone, for fields other than those of senses that were
            begun already, and as `BackpackForCausalLM.from_backbone`.
    """
    config = load_config(name_or_path)
    if config.model_type != "backpack":
        try:
            return BackpackForCausalLM.from_backbone(name_or_path, **config_kwargs)
        except (ValueError, TypeError, StrictDataclassError) as error:
            raise ValueError(f"No senses for `model`={name_or_path!r}: {error}") from error
    if not config.residual_gate:
        raise ValueError(
            f"`model` is {name_or_path!r}, a Backpack, which has senses already: adapt it as it is (`sensia adapt`), "
            "or name a causal language model without senses."
        )
    has = {name: getattr(config, name, None) for name in config_kwargs}
    if has != config_kwargs:
        raise ValueError(
            f"`backpack_config` is {config_kwargs}, but `model` is {name_or_path!r}, which has senses already with "
            f"{has}: leave `backpack_config` out to train these further, or name the model they were added to."
        )
    return load_model(name_or_path)


def choose_trained(model, args: InductionConfig) -> None:
    """
    Let the sense path be trained, and of the language model what `args` name.

    Raises:
        `ValueError`: for a model without a gate, and for a tied head and word embeddings that are to differ.
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
        `ValueError`: as [`choose_trained`].
    """

    def __init__(self, model, args, **kwargs):
        choose_trained(model, args)
        super().__init__(model, args, data_collator=stack_blocks, **kwargs)
        # Every batch holds as many labels: the mean of means is the mean.
        self.model_accepts_loss_kwargs = False
        self._sums = Counter()
        # How far the model is from a base of which parts are trained would take a second model to tell.
        self._base = {"divergence": None} if self.args.base_parts_trained else {}

    def remember_base(self, measured, prefix="") -> None:
        """Where parts of the language model are trained, evaluations tell from now on what this one, made before,
        `measured` of it."""
        if self._base:
            self._base |= {name: measured[prefix + name] for name in ("base_cross_entropy", "base_perplexity")}

    def _expected(self, *args, **kwargs):
        return super()._expected(*args, head_products=induction_head_products(self.args.mixture_weight), **kwargs)

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
        whole = self.accelerator.unwrap_model(model)
        if not self.args.base_parts_trained:
            whole.backpack.backbone.eval()  # with dropout it would be another base, and no teacher
        outputs = self.forward(model, input_ids)
        head = head_of(whole)
        labels = next_tokens(input_ids)
        with self.accelerator.autocast():
            distilled = distilled_loss(
                outputs.last_hidden_state,
                outputs.backbone_last_hidden_state,
                head,
                labels,
                share=self.args.distill_share,
                temperature=self.args.distill_temperature,
            )
            terms = {}
            if self.args.mixture_weight:
                terms["mixture_cross_entropy"] = next_token_loss(outputs.mixture, head, labels)
        terms["diversity"] = sense_diversity(senses_of_distinct(input_ids, outputs.senses))
        self.watch.losses({"distilled": distilled.loss, **terms}, self.state.global_step + 1)
        loss = distilled.loss + self.args.diversity_weight * terms["diversity"]
        loss += self.args.mixture_weight * terms.get("mixture_cross_entropy", 0.0)
        parts = distilled._asdict() | terms | {"contribution": contribution(outputs)}
        left_out = {"loss", "divergence", "base_cross_entropy"} if self._base else {"loss"}
        parts = {name: float(value.detach()) for name, value in parts.items() if name not in left_out}
        self._sums.update(parts, calls=1)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, start_time=None):
        """Adds the parts of the loss (means over the logged steps), the gate, and an alarm for one that is stuck."""
        if "loss" in logs and self._sums["calls"]:
            names = sorted(set(self._sums) - {"calls"})
            sums = torch.tensor([[self._sums[name] for name in names]], device=self.args.device)
            means = self.accelerator.gather(sums).mean(0) / self._sums["calls"]
            gate = self._gate().item()
            logs |= dict(zip(names, means.tolist(), strict=True)) | {"gate": gate}
            self._sums.clear()
            if abs(gate) < STUCK_GATE and self.state.global_step > self.args.get_warmup_steps(self.state.max_steps):
                logger.warning(
                    f"Step {self.state.global_step}: the gate is {gate:.2e}, so that the senses do nothing yet. If it "
                    "stays there, raise `gate_learning_rate`."
                )
        super().log(logs, start_time)

    def running_state(self):
        return super().running_state() | {"induction_sums": dict(self._sums)}

    def restore_running_state(self, state):
        super().restore_running_state(state)
        self._sums = Counter(state["induction_sums"])

    def _gate(self):
        gate = self.accelerator.unwrap_model(self.model).backpack.residual_gate.weight
        return gate.full_tensor() if hasattr(gate, "full_tensor") else gate

    @torch.no_grad()
    def open_gate(self, blocks=None) -> float:
        """
        Opens the gate, in the direction that training gave it, as far as text is predicted no worse than with a closed
        one: to the largest g found at which CE(b + g m) <= CE(b). The loss is flat there, so that training may leave
        the gate anywhere in that range; opened, the senses say as much as they can without a loss. A gate at which
        text is predicted worse is closed until it is not; where there is none such, it stays, and a warning says so.

        Args:
            blocks (`Dataset`, *optional*): Blocks that are neither trained nor measured on, as [`part_for_gate`] keeps
                them. Without any the first [`GATE_BLOCKS`] that were trained on, to which the senses are fitted, so
                that the gate may open too far.

        Returns:
            `float`: the gate as training left it.
        """
        model, states = self.whole_model().eval(), []
        head, trained = head_of(model), self._gate().item()
        blocks_apart = blocks is not None
        if blocks is None:
            blocks = self.train_dataset.select(range(min(GATE_BLOCKS, len(self.train_dataset))))
        for batch in self.get_eval_dataloader(blocks):
            input_ids = batch["input_ids"].to(self.args.device)
            with self.accelerator.autocast():
                outputs = self.forward(model, input_ids)
            states.append((outputs.backbone_last_hidden_state, outputs.mixture, next_tokens(input_ids)))
        bar = tqdm(desc="opening the gate", unit=" tried", disable=self.args.disable_tqdm)

        def loss(gate):
            bar.update()
            with self.accelerator.autocast():
                parts = [next_token_loss(base + gate * mixture, head, labels) for base, mixture, labels in states]
            return self.accelerator.reduce(torch.stack(parts).mean(), "mean").item()

        gate = widest(loss, trained)
        bar.close()
        if gate == trained and gate and loss(gate) > loss(0.0):
            advice = "give more text, or take fewer steps" if blocks_apart else "train for longer"
            logger.warning(f"Text is predicted worse at any opening of the gate; it stays at {trained:.4f}: {advice}.")
        self.accelerator.unwrap_model(self.model).backpack.residual_gate.weight.fill_(gate)
        return trained

    def get_eval_dataloader(self, eval_dataset=None):
        """All blocks: what does not fill a batch is left out of training alone."""
        left_out, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = left_out

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """
        Held-out blocks: `perplexity` of the model and `base_perplexity` of the language model it was made from,
        `divergence` (nats), `mixture_cross_entropy` (nats) of the senses alone, `contribution` |g m| / |b|, `gate`,
        `sense_entropy` (nats), and `ambiguous_cosine`, the mean cosine between different senses of
        [`AMBIGUOUS_WORDS`]. All in the precision of training (`bf16`), before it as within. Where parts of the
        language model are trained, what it was made from is what [`remember_base`] was told, or else the model itself
        with a closed gate.
        """
        model, rows = self.whole_model().eval(), []
        head = head_of(model)
        loader = self.get_eval_dataloader(self.eval_dataset if eval_dataset is None else eval_dataset)
        for batch in tqdm(loader, desc="evaluating", disable=self.args.disable_tqdm):
            input_ids = batch["input_ids"].to(self.args.device)
            with self.accelerator.autocast():
                values = self._measured(self.forward(model, input_ids), input_ids, head)
            rows.append(self.accelerator.gather_for_metrics(values))
        means = torch.cat(rows).cpu().double().mean(0).tolist()
        names = ("cross_entropy", "divergence", "base_cross_entropy", "mixture_cross_entropy")
        names += ("sense_entropy", "contribution")
        metrics = dict(zip(names, means, strict=True))
        metrics |= {"perplexity": exp(metrics["cross_entropy"]), "base_perplexity": exp(metrics["base_cross_entropy"])}
        metrics |= {"gate": self._gate().item(), "ambiguous_cosine": self.ambiguous_cosine(model)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in (metrics | self._base).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measured(self, outputs, input_ids, head):
        """What is measured of each block, `(B, 6)`."""
        probs, labels = sense_probs(outputs.senses, temperature=SENSE_TEMPERATURE), next_tokens(input_ids)
        values = []
        for row, tokens in enumerate(input_ids):
            states = outputs.last_hidden_state[row], outputs.backbone_last_hidden_state[row]
            _, *parts = distilled_loss(*states, head, labels[row], temperature=1.0)
            alone = next_token_loss(outputs.mixture[row], head, labels[row])
            entropy = sense_entropy(probs[row], torch.ones_like(tokens))
            values.append(torch.stack([*parts, alone, entropy, contribution(outputs, row)]))
        return torch.stack(values)

    def ambiguous_cosine(self, model) -> float | None:
        """Mean cosine between different senses of those of [`AMBIGUOUS_WORDS`] that are one token; `None` without a
        tokenizer or such a word."""
        ids = one_token_words(self.processing_class, AMBIGUOUS_WORDS) if self.processing_class else {}
        if not ids:
            return None
        senses = model.get_senses(torch.tensor(list(ids.values())))
        unit = F.normalize(senses.float(), dim=-1)
        cosines, number = unit @ unit.mT, unit.shape[-2]
        others = cosines.sum((-2, -1)) - cosines.diagonal(dim1=-2, dim2=-1).sum(-1)
        return float((others / (number * (number - 1))).mean())


def part_for_gate(blocks):
    """
    Shuffled blocks (`Dataset`) as those to train on and those kept apart to open the gate by: at most [`GATE_BLOCKS`]
    and one of [`GATE_SHARE`]; `None` of text that is too short for one.
    """
    trained = len(blocks) - min(GATE_BLOCKS, len(blocks) // GATE_SHARE)
    kept = blocks.select(range(trained, len(blocks))) if trained < len(blocks) else None
    return blocks.select(range(trained)), kept


def widest(loss, start: float) -> float:
    """
    The largest multiple of `start`, to a share of 2^-8, at which `loss` is no higher than at 0; `start` itself where
    the loss is higher there and, down to 2^-10 of it, everywhere below.

    Args:
        loss (`Callable[[float], float]`): Lowest somewhere, rising from there on.
        start (`float`): Where to begin.
    """
    closed = loss(0.0)
    if not start:
        return start
    low, high = start, 2 * start
    for _ in range(HALVINGS + 1):
        if loss(low) <= closed:
            break
        low, high = low / 2, low
    else:
        return start
    if low == start:
        for _ in range(DOUBLINGS):
            if loss(high) > closed:
                break
            low, high = high, 2 * high
        else:
            return low
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) <= closed else (low, middle)
    return low


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
    """The words that, behind a space, are one token of the tokenizer, with its id. Tokenizers that put a mark before
    every text ("▁", SentencePiece) are given the word alone."""
    found = {}
    for word in words:
        behind, alone = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f" {word}", word))
        if len(behind) == 1:
            found[word] = behind[0]
        elif len(alone) == 1 and str(tokenizer.convert_ids_to_tokens(alone[0])).startswith("▁"):
            found[word] = alone[0]
    return found


@torch.no_grad()
def sense_words(model, tokenizer, frequent: Tensor, words=AMBIGUOUS_WORDS, top_k: int = 6) -> dict:
    """
    What the senses of some words speak for, beyond what they say of every word, for a card.

    A sense s_k(w) is the mean of s_k over frequent words, the same whatever the word, and a rest that is the word's
    own. The words that the rest votes for are told, among the frequent ones: rows of the head that training hardly
    met are long in directions that mean nothing.

    Args:
        model ([`BackpackForCausalLM`]): Any with senses.
        tokenizer: The model's.
        frequent (`Tensor` of shape `(N,)`): Frequent tokens of the text.
        words: Those that are one token are shown.
        top_k (`int`, *optional*, defaults to 6): Words for each sense.

    Returns:
        `dict`: `common_share`, how much of the senses' squared length is in their means, `sum_k |mean_k|^2 /
        sum_k mean_w |s_k(w)|^2`; and `words`, a list of `word` and `senses`, up to `top_k` words for each of its K
        senses.
    """
    total, squares = 0, 0.0
    for part in frequent.split(512):
        senses = in_float64(model.get_senses(part))
        total, squares = total + senses.sum(0), squares + senses.square().sum().item()
    mean = total / len(frequent)
    candidates = in_float64(model.get_output_embeddings().weight[frequent])
    rows = []
    for word, token in one_token_words(tokenizer, words).items():
        own = in_float64(model.get_senses(torch.tensor([token], device=frequent.device))[0]) - mean
        nearest = frequent.to(own.device)[(own @ candidates.T).topk(min(top_k, len(frequent))).indices]
        rows.append(
            {"word": word, "senses": [[tokenizer.decode([i]).strip() for i in sense] for sense in nearest.tolist()]}
        )
    return {"common_share": len(frequent) * mean.square().sum().item() / squares, "words": rows}
