"""By which metric `load_best_model_at_end` chooses: its direction, and whether evaluation gives it at all."""

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


def check_named(args, example) -> None:
    """
    Raises:
        `ValueError`: `load_best_model_at_end` without `metric_for_best_model`, where evaluation has no "loss", which
            the library would take.
    """
    if args.load_best_model_at_end and args.metric_for_best_model is None:
        raise ValueError(
            "`load_best_model_at_end` is set, but `metric_for_best_model` is not; name what evaluation logs, e.g. "
            f"{example}."
        )


def check_measured(args, measured, prefix) -> None:
    """
    Args:
        measured (`dict`): What one evaluation gave, its keys beginning with `prefix`.

    Raises:
        `ValueError`: `load_best_model_at_end` asks for a `metric_for_best_model` that is not among them.
    """
    names = [name.removeprefix(prefix) for name, value in measured.items() if isinstance(value, int | float)]
    if args.load_best_model_at_end and args.metric_for_best_model.removeprefix("eval_") not in names:
        raise ValueError(
            f"`metric_for_best_model` is {args.metric_for_best_model!r}, which evaluation does not measure; it is one "
            f"of {', '.join(sorted(names))}."
        )
