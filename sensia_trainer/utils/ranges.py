"""What numbers may be: settings that are NaN, infinite or out of range are refused before anything is computed."""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Range(NamedTuple):
    """
    The numbers from `low` to `high`, of which the ends belong to it unless `above` (low) or `below` (high) is set.

    Infinity never belongs to it.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value) -> bool:
        if not math.isfinite(value):
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.above else f"{self.low:g} or more"
        high = f"less than {self.high:g}" if self.below else f"{self.high:g} at most"
        bounds = [text for text, bound in ((low, self.low), (high, self.high)) if math.isfinite(bound)]
        return "a number, " + " and ".join(bounds) if bounds else "a number"


POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
COUNT = Range(1)
SHARE = Range(0, 1, above=True)
BELOW_ONE = Range(0, 1, below=True)
SEED = Range(0, 2**32, below=True)  # NumPy's

# Fields of `TrainingArguments`, which checks few of them itself.
TRAINING_RANGES = {
    "learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": BELOW_ONE,
    "adam_beta2": BELOW_ONE,
    "adam_epsilon": POSITIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "num_train_epochs": POSITIVE,
    "warmup_steps": NOT_NEGATIVE,
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "logging_steps": POSITIVE,
    "eval_steps": POSITIVE,
    "save_steps": POSITIVE,
    "save_total_limit": COUNT,
    "seed": SEED,
    "data_seed": SEED,
    "dataloader_num_workers": NOT_NEGATIVE,
}


def check_ranges(settings, ranges: Mapping[str, Range]) -> None:
    """
    Refuses settings that are not in their range; `None` is left alone.

    Args:
        settings: An object with the settings as attributes.
        ranges (`dict[str, Range]`): By name; names that `settings` lacks are left out.

    Raises:
        `ValueError`: the first setting that is not in its range, with what it may be and the default.
    """
    for name, allowed in ranges.items():
        value = getattr(settings, name, None)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value not in allowed:
            default = getattr(type(settings), name, None)
            hint = "" if default is None else f" (the default is {default!r})"
            raise ValueError(f"`{name}` is {value!r}, but must be {allowed}{hint}.")


def check_training_arguments(args) -> None:
    """[`check_ranges`] of `TRAINING_RANGES`, and `max_steps`, which is 1 or more, or -1 to train for epochs; a number
    of epochs beside steps would be left out without a word."""
    check_ranges(args, TRAINING_RANGES)
    if args.max_steps != -1 and args.max_steps not in COUNT:
        raise ValueError(
            f"`max_steps` is {args.max_steps!r}, but must be 1 or more, or -1 to train for `num_train_epochs`."
        )
    if args.max_steps > 0 and args.num_train_epochs != type(args).num_train_epochs:
        raise ValueError(
            f"`num_train_epochs` is {args.num_train_epochs}, but `max_steps` is {args.max_steps} and goes first; "
            "set `max_steps` to -1 to train for epochs, or leave `num_train_epochs` out."
        )
    if args.resume_from_checkpoint not in (None, False):
        raise ValueError(
            f"`resume_from_checkpoint` is {args.resume_from_checkpoint!r}, but a run goes on from the newest "
            "checkpoint of its `output_dir` by itself: leave it out, or name other weights to begin with as `model`."
        )
