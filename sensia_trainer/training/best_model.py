"""The metric by which the best model is chosen or the rate lowered: its direction, and whether evaluation gives it."""

LOWER_IS_BETTER = ("loss", "perplexity", "perplexity_per_word", "nll_per_byte", "bits_per_byte", "rank")
LOWER_IS_BETTER += ("cross_entropy", "divergence", "ambiguous_cosine")  # of an induction


def set_direction(args) -> None:
    """
    Sets `greater_is_better` where it was left out, by the metric's name: `TrainingArguments` would keep the model with
    the *highest* perplexity. To be called before its `__post_init__`.
    """
    if args.metric_for_best_model is not None and args.greater_is_better is None:
        name = args.metric_for_best_model.removesuffix("_source_to_target").removesuffix("_target_to_source")
        args.greater_is_better = not name.endswith(LOWER_IS_BETTER)


def what_reads_it(args) -> str | None:
    """The setting for which `metric_for_best_model` is read; none if it is not."""
    if args.load_best_model_at_end:
        return "`load_best_model_at_end`"
    if args.save_strategy == "best":
        return "`save_strategy`='best'"
    return "`lr_scheduler_type`" if args.lr_scheduler_type == "reduce_lr_on_plateau" else None


def check_named(args, example) -> None:
    """
    Raises:
        `ValueError`: no `metric_for_best_model`, but what reads it, where evaluation has no "loss", which the library
            would take.
    """
    reader = what_reads_it(args)
    if reader and args.metric_for_best_model is None:
        raise ValueError(
            f"{reader} is set, but `metric_for_best_model` is not; name what evaluation logs, e.g. {example}."
        )


def check_measured(args, measured, prefix) -> None:
    """
    Args:
        measured (`dict`): What one evaluation gave, its keys beginning with `prefix`.

    Raises:
        `ValueError`: a `metric_for_best_model` that is read, but not among them; random weights are measured once.
    """
    names = [name.removeprefix(prefix) for name, value in measured.items() if isinstance(value, int | float)]
    names = [name for name in names if not name.startswith("random_")]
    if what_reads_it(args) and args.metric_for_best_model.removeprefix("eval_") not in names:
        raise ValueError(
            f"`metric_for_best_model` is {args.metric_for_best_model!r}, which evaluation does not measure; it is one "
            f"of {', '.join(sorted(names))}."
        )
