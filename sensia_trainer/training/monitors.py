"""Telling a training that goes wrong from one that goes well: non-finite losses, skipped steps, collapsed senses."""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import TrainerCallback
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Shares of ln K, the entropy of K senses that count alike.
LOW_ENTROPY, HIGH_ENTROPY = 0.05, 0.98
# A fall of recall@1 below this share of the best value so far.
RECALL_FALL = 0.8


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite."""


def non_finite_terms(terms: dict[str, Tensor]) -> list[str]:
    """Names of the loss terms that are NaN or infinite on any process; the same answer on all of them.

    Args:
        terms (`dict[str, torch.Tensor]`): Scalars by name, the same names on every process.
    """
    bad = torch.stack([~torch.isfinite(term.detach()) for term in terms.values()]).int()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(bad, op=dist.ReduceOp.MAX)
    return [name for name, flag in zip(terms, bad.tolist(), strict=True) if flag]


def non_finite_message(names: list[str], terms: dict[str, Tensor], step: int, row_ids) -> str:
    """Which terms went bad, when, and on which rows of the training set."""
    values = ", ".join(f"{name} = {terms[name].item()}" for name in names)
    rows = "unknown (the batch has no `rows`)" if row_ids is None else list(map(int, row_ids))
    return f"Non-finite loss at step {step}: {values}; rows of the batch on this process: {rows}."


class TrainingMonitor(TrainerCallback):
    """Counts what was left out and warns of collapse; it changes nothing of the training.

    The counts appear in the logs once they are not zero: `skipped_batches` (non-finite loss) and `skipped_steps` (the
    loss scale of fp16 was too large). Warnings are logged when they begin, and kept in the logged history as `alarm`.

    Args:
        num_senses (`int`): K of the model.
    """

    def __init__(self, num_senses: int):
        self.num_senses = num_senses
        self.counts = {"skipped_batches": 0, "skipped_steps": 0}
        self._scale_before = 0.0

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self._scale_before = _loss_scale(optimizer)

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        # The scale falls when, and only when, gradients were infinite and the step was left out. Accelerate's
        # `step_was_skipped` does not see the skips of fused AdamW, which leaves the step out by itself.
        self.counts["skipped_steps"] += _loss_scale(optimizer) < self._scale_before

    def on_log(self, args, state, control, **kwargs):
        alarms = collapse_alarms(state.log_history, self.num_senses)
        if alarms:
            state.log_history[-1]["alarm"] = "; ".join(alarms)
            if state.is_world_process_zero:
                logger.warning(f"Step {state.global_step}: {'; '.join(alarms)}.")


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
