"""What a training says while it goes on: its plan, a bar with the rate and the rest, short lines of logs."""

import sys
import time

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from ..schedule import PHASES
from .estimate import (
    FROZEN_BYTES,
    SHARE_OF_CPU,
    TRAINED_BYTES,
    Trained,
    matrix_product_rate,
    sizes_of,
    training_memory,
    training_operations,
)


# Steps whose rate tells how long the others take; the first ones are slower than the rest.
WARM_STEPS, TIMED_STEPS = 2, 5
# Libraries, and what the allocator keeps of the evaluation before: the micro model takes 1.3 GB where 0.4 are counted.
BESIDE_BYTES = 0.9e9
MEASURED_SIZE, MEASURED_SECONDS = 512, 0.3  # of matrix products, to tell the time before the first step
SIDES = ("source_to_target", "target_to_source")


class ProgressLines(TrainerCallback):
    """
    Takes the place of the library's bars and printed logs.

    Args:
        describe (`Callable[[], str]`): Says what is trained on.
        bar (`bool`): Whether a bar is drawn, with the rate and the rest; lines are printed in any case.
        cost (`Callable[[], tuple[float, float] | None]`, *optional*): Operations of a step and bytes of memory.
    """

    def __init__(self, describe, bar=True, cost=lambda: None):
        self.describe, self.cost = describe, cost
        self.bar = bar
        self._bar, self._first, self._started, self._last = None, 0, 0.0, None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if not state.is_world_process_zero:
            return
        left = state.max_steps - state.global_step
        plan = plan_line(self.describe(), state.max_steps, left, args, parameter_counts(model))
        half = args.bf16 or args.fp16
        print(plan + cost_line(self.cost(), left, args.device, half=half, used=peak_memory(args.device) or 0))
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            unit=" steps",
            dynamic_ncols=True,
            disable=not self.bar,
            delay=0,
        )
        self._first = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        if self._bar is None:
            return
        self._bar.update(state.global_step - self._bar.n if self.bar else 0)
        done = state.global_step - self._first
        if done == WARM_STEPS:
            self._started = time.monotonic()
        elif done == WARM_STEPS + TIMED_STEPS:
            seconds = (time.monotonic() - self._started) / TIMED_STEPS
            rest = (state.max_steps - state.global_step) * seconds
            self._say(
                f"about {duration(rest)} left at the rate of the first steps; memory: {memory_in_use(args.device)}"
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        line = log_line(logs) if state.is_world_process_zero else None
        line = line and f"step {state.global_step:,}: {line}"
        if line and line != self._last:  # the evaluation behind the last step repeats that at it
            self._say(line)
            self._last = line

    def on_train_end(self, args, state, control, **kwargs):
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, line):
        tqdm.write(line) if self._bar is not None and self.bar else print(line)


def parameter_counts(model) -> tuple[int, int]:
    """Parameters of a model that are trained, and all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def plan_line(data: str, max_steps: int, left: int, args, parameters: tuple[int, int]) -> str:
    """
    One line about what a training is going to do.

    Args:
        data (`str`): What is trained on.
        max_steps (`int`), left (`int`): All steps, and those that are not done yet.
        args (`TrainingArguments`): Batch and accumulation.
        parameters (`tuple[int, int]`): Trained ones, and all.
    """
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = f"{max_steps:,} steps of {batch}" + (f", {left:,} of them left" if left < max_steps else "")
    trained, total = parameters
    share = "" if trained == total else f", {amount(trained)} of them trained"
    held = trained * TRAINED_BYTES + (total - trained) * FROZEN_BYTES
    return f"Training: {data}; {steps}; {amount(total)} parameters{share}, {size(held)} with gradients and optimizer"


def cost_line(
    cost: tuple[float, float] | None, steps: int, device, rate: float | None = None, *, half=False, used=0
) -> str:
    """
    What a training takes, as words behind the plan.

    Args:
        cost (`tuple[float, float]`, *optional*): Operations of a step and bytes of memory; nothing is said without.
        steps (`int`): Steps that are left.
        device (`torch.device`): What computes; time is told where it is the processor.
        rate (`float`, *optional*): Operations a second of its matrix products; measured for a moment by default.
        half (`bool`): Whether these are in bfloat16, not in float32.
        used (`int`): Bytes that the process has had in use already; it takes no less.
    """
    if cost is None or not steps:
        return ""
    operations, memory = cost
    if device.type != "cpu":
        return f"; about {size(memory + BESIDE_BYTES)} of memory"
    memory = f"{size(max(memory + BESIDE_BYTES, used))} of memory"
    dtype = torch.bfloat16 if half else torch.float32
    rate = rate or matrix_product_rate(MEASURED_SIZE, MEASURED_SECONDS, average=True, dtype=dtype)
    return f"; about {duration(steps * operations / (SHARE_OF_CPU * rate))} on this machine and {memory}"


def expected_cost(model, step, at_once, args, *, chunked=False, head_products=0) -> tuple[float, float] | None:
    """
    Operations of a training step of one process, and the bytes of its peak; `None` for a model whose configuration
    does not tell its sizes.

    Args:
        model (`PreTrainedModel`): With what is frozen frozen.
        step (`Callable[[int], Batch]`): The batch of a step, from the size of the vocabulary.
        at_once (`Callable[[int], Batch]`): What is computed at a time.
        args (`TrainingArguments`): Precision, sharding.
        chunked (`bool`), head_products (`int`): As [`training_operations`].
    """
    shards = args.world_size if args.fsdp else 1
    half, trained = args.bf16 or args.fp16, trained_of(model)
    try:
        sizes = sizes_of(model.config)
        operations = training_operations(sizes, step(sizes.vocabulary), chunked, trained, head_products)
        memory = training_memory(sizes, at_once(sizes.vocabulary), half=half, processes=shards, trained=trained)
    except (AttributeError, TypeError):  # no such size, or one for each layer
        return None
    return operations, memory.total


def trained_of(model) -> Trained:
    """What of a model learns, from what of it requires gradients."""
    parts = model.get_input_embeddings(), model.get_output_embeddings()
    words = {id(part.weight) for part in parts if part is not None}
    learns = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and weight.ndim > 1}
    updates = {name for name in learns if "lora_" in name}
    senses = {name for name in learns.keys() - updates if "sense_" in name}
    return Trained(
        backbone=any(id(learns[name]) not in words for name in learns.keys() - updates - senses),
        words=any(id(weight) in words for weight in learns.values()),
        senses=bool(senses),
        updates=sum(learns[name].numel() for name in updates),
    )


def log_line(logs: dict) -> str | None:
    """A logged row in a few words, or nothing where there is nothing to say; all of it is in `metrics.json`."""
    if "loss" in logs:
        terms = [f"{name[5:].replace('_', ' ')} {logs[name]:.2f}" for name in logs if name.startswith("loss_")]
        phase = f", {PHASES[int(logs['phase'])]}" if "phase" in logs else ""
        rate = f", {logs['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in logs else ""
        gate = f", gate {logs['gate']:.3f}" if "gate" in logs else ""
        return f"loss {logs['loss']:.2f}" + (f" ({', '.join(terms)})" if terms else "") + gate + phase + rate
    found = {key.partition("_")[2]: value for key, value in logs.items() if key.startswith(("eval_", "before_"))}
    parts = []
    for kind, name in (("sense", "senses"), ("context", "contexts"), ("overlap", "overlap")):
        values = [found.get(f"{kind}_recall_{side}") for side in SIDES]
        if None not in values:
            parts.append(f"{name} {values[0]:.2f} → {values[1]:.2f} ←")
    lines = [f"recall@1 by {', '.join(parts)}"] if parts else []
    bits = [f"{found[f'{side}_bits_per_byte']:.2f} ({side})" for side in ("target", "source") if
            f"{side}_bits_per_byte" in found]  # fmt: skip
    lines += [f"bits per byte {', '.join(bits)}"] if bits else []
    lines += [f"held-out perplexity {found['perplexity']:.1f}"] if "perplexity" in found else []
    lines += [f"held-out loss {found['loss']:.3f}"] if "loss" in found else []
    return "; ".join(lines) or None


def duration(seconds: float) -> str:
    """`40 seconds`, `7 minutes`, `3 h 20 min`, `5 days`."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} minutes"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"


def amount(number: int) -> str:
    """`850`, `61,200`, `3.2 million`, `1.7 billion`."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number:,}"


def size(count: float) -> str:
    """Bytes as MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def memory_in_use(device) -> str:
    """The most memory that was in use so far, as words."""
    peak = peak_memory(device)
    return "unknown" if peak is None else size(peak)


def peak_memory(device) -> int | None:
    """The most bytes that were in use so far, of the accelerator or of this process; `None` where none counts them."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
