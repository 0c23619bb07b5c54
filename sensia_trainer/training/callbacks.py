"""What goes on beside the steps: polish freezes the senses, their drift is measured, and a watch for every run."""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from transformers import TrainerCallback
from transformers.utils import logging

from ..utils.memory import return_freed_memory


logger = logging.get_logger(__name__)

FROZEN_MODULES = ("sense_network", "sense_weight_net", "sense_embeddings")
# Tokens whose senses are compared with those at a start.
DRIFT_TOKENS = 64
# Steps left out one after the other before a run is given up. The loss scale of fp16 falls from 2^16 to 1 in 16.
MAX_SKIPPED = 50
# Shares of ln K, the entropy of K senses that count alike.
LOW_ENTROPY, HIGH_ENTROPY = 0.05, 0.98
# A fall of recall@1 below this share of the best value so far.
RECALL_FALL = 0.8


def freeze_senses(backpack, polish_freeze):
    """
    Freeze the sense network and the sense-weight network (Section 2.1, polish phase).

    Args:
        backpack ([`BackpackModel`]): Its parameters stop requiring gradients; their gradients are dropped.
        polish_freeze (`str`): `"modules"`: these two modules. Senses then still drift, because the sense network reads
            the word embeddings, which are tied to the head and go on learning. `"vectors"`: the sense network also
            gets its own constant copy of the embeddings (unless they are frozen anyway), so that senses do not move.
    """
    if polish_freeze == "vectors" and backpack.get_input_embeddings().weight.requires_grad:
        backpack.untie_sense_embeddings()
    for name in FROZEN_MODULES:
        module = getattr(backpack, name)
        if module is not None:
            module.requires_grad_(False)
            module.zero_grad(set_to_none=True)


def is_frozen_in_polish(name: str) -> bool:
    """Whether polish freezes the parameter of a Backpack that has this name, unless it freezes nothing."""
    return name.split(".")[0] in FROZEN_MODULES


class PhaseCallback(TrainerCallback):
    """
    Freezes the senses when the polish phase begins, and measures how far senses drift: those of words all over the
    vocabulary since the start of polish, and those of the source language's words since the start of training.

    The phase is a function of the step, so a run resumed within polish freezes at its first step. What cannot be
    computed again, the senses at these starts, is `references` and goes into the checkpoint.

    Args:
        backpack ([`BackpackModel`]): The model whose senses these are.
        source_tokens (`list[int]`): Frequent tokens of the source language.
        sharded_model (*optional*): The model around it where weights are sharded: they are whole in its forward pass
            only.
    """

    def __init__(self, backpack, source_tokens, sharded_model=None):
        self.backpack = backpack
        self.sharded_model = sharded_model
        size = backpack.config.vocab_size
        everywhere = torch.linspace(0, size - 1, min(DRIFT_TOKENS, size)).long()
        self.tokens = {"sense": everywhere, "source_sense": torch.tensor(source_tokens, dtype=torch.long)}
        self.references = {}
        self.frozen = []  # parameters that polish froze

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:  # not where a run is resumed, whose references were read
            self.references = {}
        self._keep("source_sense")

    def on_step_begin(self, args, state, control, **kwargs):
        if args.at_step(state.global_step, state.max_steps).phase != "polish":
            return
        if args.polish_freeze != "none" and self._trainable():
            trained = [parameter for parameter in self.backpack.parameters() if parameter.requires_grad]
            freeze_senses(self.backpack, args.polish_freeze)
            self.frozen = [parameter for parameter in trained if not parameter.requires_grad]
        self._keep("sense")

    def on_train_end(self, args, state, control, **kwargs):
        # Another training of the same model begins with all that this one began with. The copy of the embeddings that
        # constant senses are made of, if there is one now, stays as it is.
        for parameter in self.frozen:
            parameter.requires_grad_(True)

    def drifts(self):
        """
        `sense_drift_cosine` (from the start of polish on) and `source_sense_drift_cosine`: mean cosines between the
        senses at the start and now, 1 where they have not moved.
        """
        cosines = {
            name: F.cosine_similarity(then, self._senses(name), dim=-1) for name, then in self.references.items()
        }
        return {f"{name}_drift_cosine": cosine.mean().item() for name, cosine in cosines.items()}

    def _keep(self, name):
        if name not in self.references and len(self.tokens[name]):
            self.references[name] = self._senses(name)

    def _trainable(self):
        return any(p.requires_grad for p in self.backpack.sense_network.parameters())

    @torch.no_grad()
    def _senses(self, name):
        training = self.backpack.training
        self.backpack.eval()
        tokens = self.tokens[name].to(self.backpack.device)
        if self.sharded_model is None:
            senses = self.backpack.compute_senses(tokens)
        else:
            senses = self.sharded_model(tokens[:, None], output_senses=True, logits_to_keep=1).senses.squeeze(1)
        senses = senses.float().cpu()
        self.backpack.train(training)
        return senses


class NonFiniteError(RuntimeError):
    """A loss, a gradient or a weight became NaN or infinite."""


class MemoryGuard(TrainerCallback):
    """Before a step on a CPU, gives freed memory back where the machine has little left (see `utils/memory.py`)."""

    def on_step_begin(self, args, state, control, **kwargs):
        if args.device.type == "cpu":
            return_freed_memory()


class TrainingWatch(TrainerCallback):
    """
    Stops a training that went wrong before its weights are spoilt or saved, counts what was left out, warns of
    collapse. It changes nothing of a training that goes well.

    The trainer asks it about losses ([`losses`]) before they are sent backward, about the gradient norm
    ([`gradients`]) before the optimizer's step, and about the weights ([`weights`]) before they are written.

    The counts appear in the logs once they are not zero: `skipped_batches` (not finite) and `skipped_steps` (the loss
    scale of fp16 was too large). Warnings are logged when they begin, and kept in the logged history as `alarm`.

    Args:
        non_finite (`str`, *optional*, defaults to `"stop"`): What follows a loss or gradient that is not finite:
            `"stop"`, or `"skip"` to leave the batch out, `MAX_SKIPPED` times in a row at most.
        num_senses (`int`, *optional*, defaults to 0): K of the model, for warnings about its entropy.
    """

    def __init__(self, non_finite="stop", num_senses=0):
        self.non_finite = non_finite
        self.num_senses = num_senses
        self.counts = {"skipped_batches": 0, "skipped_steps": 0}
        self._in_a_row = 0
        self._scale_before = 0.0

    def losses(self, terms: dict[str, Tensor], step: int, rows=None) -> bool:
        """
        Whether all loss terms are finite on all processes.

        Args:
            terms (`dict[str, torch.Tensor]`): Scalars by name, the same names on every process.
            step (`int`): Number of the step, from 1.
            rows (*optional*): Numbers of the batch's rows in the training set.

        Raises:
            `NonFiniteError`: if not, with `non_finite="stop"`.
        """
        bad = non_finite_terms(terms)
        if bad:
            self._leave_out(non_finite_message(bad, terms, step, rows))
        return not bad

    def gradients(self, norm: Tensor | float, model, step: int) -> None:
        """
        Looks at the norm of all gradients, the same on every process, and drops them if it is not finite.

        Raises:
            `NonFiniteError`: if it is not finite, with `non_finite="stop"`.
        """
        if math.isfinite(norm):
            if norm > 0:  # it is 0 in a step whose losses were left out
                self._in_a_row = 0
            return
        names = _not_finite({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        self._leave_out(
            f"Non-finite gradients at step {step}: their norm is {float(norm)} ({len(names)} weights are affected: "
            f"{', '.join(names[:3])} …)."
        )
        model.zero_grad()

    def weights(self, model, step: int) -> None:
        """
        Looks at all weights before they are written.

        Raises:
            `NonFiniteError`: if any is not finite. What was saved before is untouched.
        """
        bad = _not_finite({name: parameter.detach() for name, parameter in model.named_parameters()})
        if _on_any_process(torch.tensor(bool(bad), device=next(model.parameters()).device)):
            raise NonFiniteError(
                f"After step {step}, {len(bad)} weights on this process hold NaN or infinite numbers "
                f"({', '.join(bad[:3])} …), so nothing is saved. Start again from the checkpoint before, with a lower "
                "`learning_rate`, or with bf16 or float32 instead of fp16."
            )

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self._scale_before = _loss_scale(optimizer)

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        # The scale falls when, and only when, gradients were infinite and the step was left out. Accelerate's
        # `step_was_skipped` does not see the skips of fused AdamW, which leaves the step out by itself.
        scale = _loss_scale(optimizer)
        if scale < self._scale_before:
            self.counts["skipped_steps"] += 1
            self._count_in_a_row(f"The loss scale of fp16 fell to {scale}.")
        elif scale:
            self._in_a_row = 0

    def on_log(self, args, state, control, **kwargs):
        alarms = collapse_alarms(state.log_history, self.num_senses)
        if alarms:
            state.log_history[-1]["alarm"] = "; ".join(alarms)
            if state.is_world_process_zero:
                logger.warning(f"Step {state.global_step}: {'; '.join(alarms)}.")

    def _leave_out(self, message):
        if self.non_finite == "stop":
            raise NonFiniteError(
                f"{message} Look at these rows; if they are sound, lower `learning_rate`, or use bf16 instead of fp16."
            )
        logger.warning(f"{message} The batch is skipped.")
        self.counts["skipped_batches"] += 1
        self._count_in_a_row(message)

    def _count_in_a_row(self, message):
        self._in_a_row += 1
        if self._in_a_row > MAX_SKIPPED:
            raise NonFiniteError(
                f"{message} That is {self._in_a_row} steps left out one after the other: the weights are beyond "
                "repair. Start again from an earlier checkpoint with a lower `learning_rate`, or with bf16."
            )


def non_finite_terms(terms: dict[str, Tensor]) -> list[str]:
    """Names of the loss terms that are NaN or infinite on any process; the same answer on all of them.

    Args:
        terms (`dict[str, torch.Tensor]`): Scalars by name, the same names on every process.
    """
    bad = _on_any_process(torch.stack([~torch.isfinite(term.detach()) for term in terms.values()]))
    return [name for name, flag in zip(terms, bad.tolist(), strict=True) if flag]


def non_finite_message(names: list[str], terms: dict[str, Tensor], step: int, row_ids=None) -> str:
    """Which terms went bad, when, and on which rows of the training set."""
    values = ", ".join(f"{name} = {terms[name].item()}" for name in names)
    rows = "unknown (the batch has no `rows`)" if row_ids is None else list(map(int, row_ids))
    return f"Non-finite loss at step {step}: {values}; rows of the batch on this process: {rows}."


def collapse_alarms(history: list[dict], num_senses: int) -> list[str]:
    """What is wrong in the newest row of a logged history and was not wrong before.

    Args:
        history (`list[dict]`): Rows of `TrainerState.log_history`, oldest first. Read are the keys that contain
            `sense_entropy` (nats) and those of evaluations that contain `recall`.
        num_senses (`int`): K; the entropy lies between 0 (one sense does everything) and ln K (all senses alike).

    Returns:
        `list[str]`: a sentence for each alarm: an entropy below 5 % or above 98 % of ln K, or a recall@1 below 80 % of
        the best so far.
    """
    alarms = []
    for key, value in history[-1].items():
        earlier = [row[key] for row in history[:-1] if key in row]
        if "sense_entropy" in key:
            now, before = (_entropy_alarm(x, num_senses) for x in (value, earlier[-1] if earlier else None))
            if now and now != before:
                alarms.append(f"{key} is {value:.3f} nats: {now} (0 to ln K = {math.log(num_senses):.3f})")
        elif key.startswith("eval_") and "recall" in key and earlier:
            fallen = value < RECALL_FALL * max(earlier)
            was_fallen = len(earlier) > 1 and earlier[-1] < RECALL_FALL * max(earlier[:-1])
            if fallen and not was_fallen:
                alarms.append(f"{key} fell to {value:.3f}, its best was {max(earlier):.3f}")
    return alarms


def _on_any_process(flags: Tensor) -> Tensor:
    flags = flags.int()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return flags


def _not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinite number; of sharded ones, in the part on this process."""
    local = {name: tensor.to_local() if hasattr(tensor, "to_local") else tensor for name, tensor in tensors.items()}
    return [name for name, tensor in local.items() if not torch.isfinite(tensor).all()]


def _loss_scale(optimizer) -> float:
    scaler = getattr(optimizer, "scaler", None)
    return 0.0 if scaler is None else scaler.get_scale()


def _entropy_alarm(entropy: float | None, num_senses: int) -> str | None:
    if entropy is None or num_senses < 2:
        return None
    share = entropy / math.log(num_senses)
    if share < LOW_ENTROPY:
        return "one sense does nearly everything"
    if share > HIGH_ENTROPY:
        return "the senses are used nearly alike"
    return None
