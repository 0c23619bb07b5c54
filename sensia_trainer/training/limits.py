"""Numbers of `TrainingArguments` that make no sense are refused before anything is read."""

import math


# Field: least value, whether that itself is allowed, and a bound above. `None` is left to the library.
LIMITS = {
    "learning_rate": (0, True, math.inf),
    "num_train_epochs": (0, False, math.inf),
    "warmup_steps": (0, True, math.inf),
    "weight_decay": (0, True, math.inf),
    "adam_beta1": (0, True, 1),
    "adam_beta2": (0, True, 1),
    "adam_epsilon": (0, False, math.inf),
    "max_grad_norm": (0, True, math.inf),
    "per_device_train_batch_size": (1, True, math.inf),
    "per_device_eval_batch_size": (1, True, math.inf),
    "gradient_accumulation_steps": (1, True, math.inf),
    "logging_steps": (0, False, math.inf),
    "eval_steps": (0, False, math.inf),
    "save_steps": (0, False, math.inf),
    "save_total_limit": (1, True, math.inf),
    "dataloader_num_workers": (0, True, math.inf),
    "seed": (0, True, 2**32),
    "data_seed": (0, True, 2**32),
}


def check_numbers(args) -> None:
    """
    Refuses what training cannot mean: no steps, negative rates, a batch of nothing, NaN.

    Args:
        args (`TrainingArguments`): Before or after its own `__post_init__`.

    Raises:
        `ValueError`: names the field, its value and what is allowed.
    """
    if args.max_steps != -1 and not args.max_steps >= 1:
        raise ValueError(
            f"`max_steps` is {args.max_steps}, but must be 1 or more, or -1 for as many as `num_train_epochs` takes."
        )
    for name, (least, inclusive, bound) in LIMITS.items():
        value = getattr(args, name)
        if isinstance(value, int | float) and not ((value >= least if inclusive else value > least) and value < bound):
            allowed = f"{'at least' if inclusive else 'above'} {least}"
            above = f" and below {bound}" if math.isfinite(bound) else ""
            raise ValueError(f"`{name}` is {value}, but must be {allowed}{above}.")
