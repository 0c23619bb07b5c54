"""Every number of the method, as a field with the paper's value (Appendices B and C)."""

from dataclasses import dataclass, field
from typing import ClassVar

from transformers import TrainingArguments

from .languages import language
from .schedule import PHASES, PhaseSchedule
from .training.best_model import check_named, set_direction
from .utils.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, SHARE, check_ranges, check_training_arguments


RANGES = {
    "w_sense": NOT_NEGATIVE,
    "w_context": NOT_NEGATIVE,
    "w_lm": NOT_NEGATIVE,
    "source_lm_weight": NOT_NEGATIVE,
    "sense_pool_temperature": POSITIVE,
    "context_layer": NOT_NEGATIVE,
    "hard_negative_weight": NOT_NEGATIVE,
    "noisy_pair_exponent": BELOW_ONE,
    "label_smoothing": BELOW_ONE,
    "contrastive_chunk_size": NOT_NEGATIVE,
    "max_length": COUNT,
    "language_temperature": POSITIVE,
    "replay_ratio": SHARE,  # more would starve the pairs
    "monolingual_ratio": SHARE,
}
BATCH_LANGUAGES = ("mixed", "one")
POLISH_FREEZES = ("modules", "vectors", "none")
NON_FINITE_LOSSES = ("stop", "skip")
# SENSIA and what it is compared with, each as the defaults in which it differs: language modelling alone (the
# control), the same for a model without senses, and dense alignment of such a model (Li et al., 2024: its last token
# after the first block, temperature 0.05, one direction, negatives that all count the same). Data, steps and batches
# are the recipe's, so that two methods of one recipe see the same pairs in the same order.
LM_ONLY = {"w_sense": 0.0, "w_context": 0.0, "w_lm": 1.0, "polish_freeze": "none"}
MCL = {"w_sense": 0.0, "w_context": 1.0, "w_lm": 1.5, "tau_context": 0.05, "symmetric": False, "context_layer": 1}
MCL |= {"hard_negative_weight": 0.0, "polish_freeze": "none"}
METHODS = {"sensia": {}, "lm-only": LM_ONLY, "fine-tuning": LM_ONLY, "mcl": MCL}
PRESETS = {"method": METHODS}  # as recipes take them
METHODS_WITHOUT_SENSES = ("fine-tuning", "mcl")  # they adapt a model that has none


@dataclass
class SensiaConfig(TrainingArguments):
    """
    Configuration of [`SensiaTrainer`]: the fields of `TrainingArguments` and those of the method.

    Where the paper and its published code differ, the default follows the paper and the field's help names the
    published value; `reference` collects those.

    > Defaults that differ from `TrainingArguments`: `max_steps=150_000`, `learning_rate=5e-5`,
    > `per_device_train_batch_size=64`, `warmup_steps=0.1` (a share), `weight_decay=0.01`, `seed=1234`,
    > `eval_steps=2000`, `logging_steps=100` (Appendix C), `train_sampling_strategy="group_by_length"`,
    > `use_cache=True` (the saved model generates with its cache), `dataloader_drop_last=True` (a contrastive loss
    > wants a constant number of negatives),
    > `remove_unused_columns=False` (the collator names the inputs) and `ddp_find_unused_parameters=True` (modules
    > freeze while training runs).

    Raises:
        `ValueError`: for values outside what a field's help allows.
    """

    FREE: ClassVar = ("target_language_name",)  # does not tell runs apart

    # Schedule (Appendix B)
    align_fraction: float = field(default=0.2, metadata={"help": "Share of the steps in the alignment phase."})
    joint_fraction: float = field(default=0.3, metadata={"help": "Share of the steps in the joint phase."})
    polish_fraction: float = field(default=0.5, metadata={"help": "Share of the steps in the polish phase."})
    phases: list[str] = field(
        default_factory=lambda: list(PHASES),
        metadata={"help": "Phases that run, in order; leave one out for the ablations of Table 6."},
    )
    align_weights: list[float] = field(
        default_factory=lambda: [0.54, 0.44, 0.02],
        metadata={"help": "w_sense, w_context and w_lm where the alignment phase starts."},
    )
    joint_weights: list[float] = field(
        default_factory=lambda: [0.40, 0.40, 0.20],
        metadata={"help": "w_sense, w_context and w_lm where the joint phase starts."},
    )
    polish_weights: list[float] = field(
        default_factory=lambda: [0.15, 0.15, 0.70],
        metadata={"help": "w_sense, w_context and w_lm in the polish phase."},
    )
    w_sense: float | None = field(
        default=None, metadata={"help": "Constant weight of the sense loss instead of the scheduled one; 0: off."}
    )
    w_context: float | None = field(
        default=None, metadata={"help": "Constant weight of the context loss instead of the scheduled one; 0: off."}
    )
    w_lm: float | None = field(
        default=None, metadata={"help": "Constant weight of the language-model loss instead of the scheduled one."}
    )
    normalise_weights: bool = field(
        default=False, metadata={"help": "Divide the three weights by their sum. Published code: true."}
    )
    count_steps_from: int = field(
        default=0,
        metadata={
            "help": "Number of the first step, of which the schedule's progress is the share of `max_steps`: 0, or 1 "
            "(published code)."
        },
    )
    source_lm_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the source language's language-model loss, as a multiple of w_lm (of the target's, "
            "which always counts once). 0: the target alone learns to be fluent, and the source language is forgotten."
        },
    )

    # Losses (Section 2.1)
    symmetric: bool = field(
        default=True, metadata={"help": "InfoNCE in both directions (Eq. 3). Published code: false, source to target."}
    )
    tau_sense: float = field(default=0.05, metadata={"help": "Temperature of the sense loss."})
    tau_sense_end: float | None = field(default=None, metadata={"help": "Its final value; constant by default."})
    tau_context: float = field(default=0.07, metadata={"help": "Temperature of the context loss."})
    tau_context_end: float | None = field(default=None, metadata={"help": "Its final value; constant by default."})
    tau_decay_end: str = field(
        default="joint",
        metadata={"help": "Phase at whose end temperatures are final: joint (Appendix B). Published code: align."},
    )
    sense_pooling: str = field(
        default="magnitude",
        metadata={
            "help": "Sense vectors from senses (magnitude), from contributions (contextual, published code), or the "
            "mean of the model's own mixture (mixture)."
        },
    )
    sense_pool_temperature: float = field(default=0.7, metadata={"help": "Softmax temperature of the pooling."})
    context_state: str = field(
        default="mixture",
        metadata={
            "help": "Context vector from the mixture of senses, from the backbone's final state (backbone), or from "
            "what the head reads (combined): the mixture again, or with a gate the mixture added to the backbone's."
        },
    )
    context_layer: int | None = field(
        default=None,
        metadata={"help": "Context vector from the backbone's state after this many blocks instead (mcl: 1)."},
    )
    hard_negative_weight: float = field(
        default=0.0,
        metadata={
            "help": "How much more those negatives of a batch count that are near (beta of Robinson et al., 2021); "
            "pairs that share a sentence are none then. 0: all alike, as in the paper."
        },
    )
    noisy_pair_exponent: float = field(
        default=0.0,
        metadata={
            "help": "How much less those pairs count whose sides do not resemble each other (q of Zhang and Sabuncu, "
            "2018, below 1). 0: all alike, as in the paper."
        },
    )
    label_smoothing: float = field(default=0.05, metadata={"help": "Epsilon of the language-model loss."})

    contrastive_chunk_size: int = field(
        default=0,
        metadata={
            "help": "Pairs computed at a time while the contrastive losses see the whole batch (cached gradients): "
            "the memory of this many pairs, one more forward pass. 0: all at once."
        },
    )
    non_finite_loss: str = field(
        default="stop",
        metadata={
            "help": "A NaN or infinite loss: stop, or skip the batch and count it (not with cached gradients, nor "
            "with gradient accumulation on several processes)."
        },
    )

    # Freezing (Section 2.1)
    polish_freeze: str = field(
        default="modules",
        metadata={
            "help": "What polish freezes: modules (sense and sense-weight networks: the paper's words; senses still "
            "drift with the word embeddings they are computed from), vectors (those, and the sense network reads a "
            "constant copy of the embeddings), none (published run)."
        },
    )

    # Data
    source_language: str = field(
        default="en", metadata={"help": "Code of the source side, in any form: en, eng_Latn."}
    )
    target_language: str | None = field(
        default=None,
        metadata={"help": "Code of the target side (sw, swh_Latn, zh-CN, haw). Default: the bitext's other language."},
    )
    target_language_name: str | None = field(
        default=None, metadata={"help": "What cards and figures call it, where the code's own name will not do."}
    )
    language_temperature: float = field(
        default=5.0,
        metadata={
            "help": "Where the bitext has several pairs of languages: the share of each in training is its size to "
            "the power of 1 / this (Arivazhagan et al., 2019). 1: in proportion to their sizes; much: all alike."
        },
    )
    batch_languages: str = field(
        default="mixed",
        metadata={
            "help": "Where the bitext has several pairs of languages: mixed (each batch has pairs of all), or one "
            "(each batch is of one pair of languages, so that all negatives are in the language of the positive)."
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of a sentence at most; longer ones are cut and counted. Default: the model's positions."
        },
    )
    replay_ratio: float = field(
        default=0.25, metadata={"help": "Texts of the source language, where there are any, for each pair; 1 at most."}
    )
    monolingual_ratio: float = field(
        default=0.25, metadata={"help": "Texts of the target language, where there are any, for each pair; 1 at most."}
    )
    predict_end: bool = field(
        default=True,
        metadata={
            "help": "Train the end-of-text token after each target sentence that is not cut. Published code: false, "
            "never stops."
        },
    )

    # Defaults of TrainingArguments that differ
    max_steps: int = field(
        default=150_000, metadata={"help": "Training steps; -1: as many as `num_train_epochs` takes."}
    )
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Pairs per device; InfoNCE needs two."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warmup steps; below 1: their share."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    decay_biases: bool = field(
        default=False, metadata={"help": "Weight decay on biases and norms as well. Published code: true."}
    )
    seed: int = field(default=1234, metadata={"help": "Random seed."})
    logging_steps: float = field(default=100, metadata={"help": "Log every so many steps."})
    eval_steps: float | None = field(default=2000, metadata={"help": "Evaluate every so many steps."})
    train_sampling_strategy: str = field(default="group_by_length", metadata={"help": "Batches of similar length."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop the last, smaller batch."})
    use_cache: bool = field(default=True, metadata={"help": "Saved with the model; training never caches."})
    remove_unused_columns: bool | None = field(default=False, metadata={"help": "Must stay false."})
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "Lets modules freeze while training runs on several processes."}
    )

    def __post_init__(self):
        from .representations import CONTEXT_STATES, POOLINGS  # of torch, which help does without

        for name in ("source_language", "target_language"):
            code = getattr(self, name)
            if code is not None:
                try:
                    setattr(self, name, language(code).code)
                except ValueError as error:
                    raise ValueError(f"`{name}`: {error}.") from None
        if self.source_language == self.target_language:
            raise ValueError(
                f"`target_language` is {self.target_language!r}, which is `source_language` too; give another."
            )
        for name, allowed in (
            ("count_steps_from", (0, 1)),
            ("sense_pooling", POOLINGS),
            ("context_state", CONTEXT_STATES),
            ("polish_freeze", POLISH_FREEZES),
            ("batch_languages", BATCH_LANGUAGES),
            ("non_finite_loss", NON_FINITE_LOSSES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, but must be one of {allowed}.")
        check_training_arguments(self)
        check_ranges(self, RANGES)
        self.schedule  # noqa: B018 (its checks)
        if self.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor` is {self.label_smoothing_factor}, which `Trainer` would apply to unshifted "
                "labels; use `label_smoothing`."
            )
        if self.per_device_train_batch_size < 2 and (self.w_sense != 0 or self.w_context != 0):
            raise ValueError(
                f"`per_device_train_batch_size` is {self.per_device_train_batch_size}, but InfoNCE takes its "
                "negatives from the other pairs of the batch and needs two or more; raise it, or set `w_sense` and "
                "`w_context` to 0 for language modelling alone."
            )
        if self.contrastive_chunk_size and self.non_finite_loss == "skip":
            raise ValueError(
                "`non_finite_loss` is 'skip', but with `contrastive_chunk_size` the gradients of one chunk are taken "
                "before the loss of the next is known; use 'stop', or compute whole batches."
            )
        if str(self.optim).startswith("schedule_free"):
            raise ValueError(
                f"`optim` is {self.optim!r}, which keeps two sets of weights and must be told when it is evaluated; "
                "use another, with its schedule (`lr_scheduler_type`)."
            )
        check_named(self, "target_bits_per_byte (of several languages en-id_target_bits_per_byte)")
        set_direction(self)
        super().__post_init__()
        if self.non_finite_loss == "skip" and self.gradient_accumulation_steps > 1 and self.world_size > 1:
            raise ValueError(
                "`non_finite_loss` is 'skip', but `gradient_accumulation_steps` is "
                f"{self.gradient_accumulation_steps} on {self.world_size} processes: where the last batch of a step "
                "is skipped, the gradients of the others are never averaged. Use 'stop', or no gradient accumulation."
            )

    @property
    def languages(self):
        """The codes of both sides, and the name of the target where one was given: what `metrics.json` holds."""
        name = {"target_name": self.target_language_name} if self.target_language_name else {}
        return {"source": self.source_language, "target": self.target_language} | name

    @property
    def schedule(self):
        """The [`PhaseSchedule`] of these fields, constant weights in the place of the scheduled ones."""
        return PhaseSchedule.of(vars(self))

    def phase_state(self, progress):
        """The schedule's [`PhaseState`] at `progress` in [0, 1]."""
        return self.schedule.at(progress)

    def at_step(self, step, max_steps):
        """The [`PhaseState`] of a step, the first of which is 0; its progress counts from `count_steps_from`."""
        return self.phase_state((step + self.count_steps_from) / max_steps)
