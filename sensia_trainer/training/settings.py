"""What the commands that train are given, besides `config.py`. Quick to import, so that their help comes fast: what a
check needs is imported where it is made."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainingArguments

from ..config import METHODS, METHODS_WITHOUT_SENSES
from ..utils.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, Range, check_ranges, check_training_arguments
from .best_model import check_named, set_direction, what_reads_it


TRAININGS = ("all", "senses", "lora")
SENSE_TRAININGS = ("full", "lora")
SMALLEST_VOCABULARY = 258
INDUCTION_RANGES = {
    "distill_share": Range(0, 1),
    "distill_temperature": POSITIVE,
    "mixture_weight": NOT_NEGATIVE,
    "diversity_weight": NOT_NEGATIVE,
    "gate_learning_rate": POSITIVE,  # or the gate would stay at 0
}

# What a step of `induce_steps` reads, so many blocks of so many tokens, and the rate of so few steps, as in
# recipes/induce_smollm2.yaml; the default of `InductionConfig` is that of 40,000.
INDUCED_BLOCKS, INDUCED_LENGTH, INDUCED_RATE = 8, 256, 1e-3


@dataclass
class AdaptationData:
    """
    The base model, the bitext, and the pairs that measure progress.

    `FREE` fields do not tell runs apart: what the `NAMED` ones name is compared itself ([`RunFolder.settle`]), and by
    its name where nothing is read any more, since the run is finished.
    """

    TEXTS: ClassVar = ("replay_source", "monolingual_target", "evaluation_sets")
    NAMED: ClassVar = ("model", "dense_model", "tokenizer", "bitext", "eval_bitext", "eval_flores", *TEXTS)
    FREE: ClassVar = (*NAMED, "licence", "text_licence", "control", "estimate")

    model: str | None = field(
        default=None,
        metadata={
            "help": "English Backpack to adapt (Hub id, folder, or the packaged backpack-micro-en), or with "
            "`induce_steps` any English language model."
        },
    )
    bitext: list[Any] | None = field(
        default=None,
        metadata={
            "help": "Parallel text, one source or several: a Hub dataset id, a folder saved by datasets, a TSV or CSV "
            "file whose first line names its columns by language code (en, id), a JSONL, Parquet or TMX file, two "
            "line-aligned files (source first), a folder of gettext catalogues, or a Python package that carries "
            'them (django); or a mapping, {"path": "a.tsv", "name": "news", "split": '
            '"train", "config_name": "en-id", "source_column": "src", "target_column": "tgt", "keep": {"ok": "yes"}, '
            '"cap": {"domain": 1000}, "max_pairs": 60000, "licence": "CC0"}, of which all but the path may be left '
            "out. May name environment variables: ${SENSIA_DATA}/train/en-id.tsv.gz. Several languages in one model: "
            'a mapping from languages, or pairs of them, to any of these, {"id": "a.tsv", "sw": ["b.tsv", "c.tsv"], '
            '"id-sw": "d.tsv"}; other fields are then of each pair, and `target_language` is left out.'
        },
    )
    method: str = field(
        default="sensia",
        metadata={
            "help": "sensia; lm-only: language modelling alone, the control; fine-tuning: the same for a model "
            "without senses; mcl: dense alignment of such a model (Li et al., 2024). A method has its own defaults "
            "of some fields below; what a recipe or the command line gives goes before them."
        },
    )
    dense_model: str | None = field(
        default=None,
        metadata={
            "help": "What the methods without senses (fine-tuning, mcl) adapt instead: a causal language model, best "
            "the backbone of `model` pretrained on the same text."
        },
    )
    induce_steps: int = field(
        default=0,
        metadata={
            "help": "Where `model` has no senses: train so many steps of them on the source sides, behind a gate "
            "that leaves the model what it knows (`sensia induce` does it with more text)."
        },
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer of the model, where its folder has none: Hub id or folder."}
    )
    bitext_split: str = field(default="train", metadata={"help": "Split of a Hub or saved dataset."})
    bitext_keep: dict | str | None = field(
        default=None, metadata={"help": 'Only rows with these values, e.g. {"licence_class": "open"}.'}
    )
    bitext_cap: dict | str | None = field(
        default=None, metadata={"help": 'At most so many rows of each value of a column, e.g. {"domain": 60000}.'}
    )
    max_pairs: int | None = field(default=None, metadata={"help": "At most so many training pairs, drawn by `seed`."})
    eval_bitext: list[Any] | None = field(default=None, metadata={"help": "Held-out bitext; any kind `bitext` takes."})
    eval_flores: str | None = field(
        default=None, metadata={"help": "FLORES-200 folder or Hub id instead; its dev split is used."}
    )
    held_out_pairs: int = field(
        default=200, metadata={"help": "Pairs held out of `bitext` where no held-out data is given."}
    )
    replay_source: list[str] | None = field(
        default=None,
        metadata={
            "help": "Text of the source language to train on beside the pairs, so that it is not forgotten (with "
            "`source_lm_weight`): .txt files (a text a line), .jsonl or .tsv files (column `text`, else the one named "
            "by the language's code), or a Hub dataset id, with a configuration after a colon (owner/name:sw)."
        },
    )
    monolingual_target: list[str] | None = field(
        default=None, metadata={"help": "Text of the target language to train on beside the pairs; likewise."}
    )
    evaluation_sets: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What neither pairs nor texts beside them may hold a sentence of, besides the held-out pairs and "
            "`eval_flores`: files, folders, or Hub ids (with a configuration after a colon)."
        },
    )
    licence: str | None = field(
        default=None,
        metadata={
            "help": "Licence of the bitext, for the model card; a Python package that carries it names its own."
        },
    )
    text_licence: str | None = field(
        default=None,
        metadata={
            "help": "Licence of `replay_source` and `monolingual_target`, which with that of the bitext decides the "
            "one of the weights; unknown where it is not said."
        },
    )
    control: str | None = field(
        default=None, metadata={"help": "metrics.json of the LM-only control, shown beside in the model card."}
    )
    estimate: bool = field(
        default=False,
        metadata={
            "help": "Only print what the training would take, here and on GPUs: steps, operations, memory, hours."
        },
    )

    def __post_init__(self):
        if not self.model and self.method not in METHODS_WITHOUT_SENSES:
            raise ValueError(
                "`model` is not set: `sensia adapt quickstart` brings a small one, `--model NAME --induce_steps 500` "
                "first gives senses to an English language model (yours, or the Hub's), and `--model FOLDER` adapts a "
                "Backpack that `sensia induce`, `pretrain` or `convert` has made."
            )
        if self.bitext is None:
            raise ValueError(
                "`bitext` is not set: name parallel text, e.g. a TSV file whose first line names its columns by "
                "language code (`--bitext pairs.tsv`), or a data set of the Hub."
            )
        if self.induce_steps < 0:
            raise ValueError(f"`induce_steps` is {self.induce_steps}, but must be 0 (no induction) or more.")
        if self.method not in METHODS:
            raise ValueError(f"`method` is {self.method!r}, but must be one of {tuple(METHODS)}.")
        from ..bitext.pairs import check_choice, names_languages, parse_mapping, parse_sources
        from ..bitext.several import check_sources

        for name in ("bitext_keep", "bitext_cap"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, parse_mapping(getattr(self, name), name))
        check_choice(self.bitext_keep, self.bitext_cap, "bitext")
        for name in ("bitext", "eval_bitext", "replay_source", "monolingual_target", "evaluation_sets"):
            if isinstance(getattr(self, name), str | dict):
                setattr(self, name, [getattr(self, name)])
        for name in ("bitext", "eval_bitext"):
            given = getattr(self, name)
            if given and len(given) == 1 and str(given[0]).lstrip().startswith("{"):
                given = [parse_mapping(given[0], name) if isinstance(given[0], str) else given[0]]
                setattr(self, name, given)
            if names_languages(given):
                check_sources(given, self.bitext_split, name)
            elif given is not None:
                parse_sources(given, self.bitext_split, name)
        if self.eval_bitext and self.eval_flores:
            raise ValueError("Give one of `eval_bitext` and `eval_flores`, not both.")
        if not self.eval_bitext and not self.eval_flores and self.held_out_pairs < 2:
            raise ValueError(
                f"`held_out_pairs` is {self.held_out_pairs}, but retrieval is measured among 2 or more; raise it, or "
                "give `eval_bitext` or `eval_flores`."
            )
        if self.max_pairs is not None and self.max_pairs < 2:
            raise ValueError(f"`max_pairs` is {self.max_pairs}, but must be 2 or more; leave it out for all pairs.")


@dataclass
class TrainedParts:
    """What of a model is trained: see [`~sensia_trainer.training.parts.choose_parts`]."""

    train: str = field(
        default="all",
        metadata={
            "help": "What is trained: all; senses (sense network, sense weights, gate, and the rows of new words); or "
            "lora (those, and low-rank updates of the backbone, merged before saving; with the extra `peft`)."
        },
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the updates."})
    lora_alpha: float = field(default=32.0, metadata={"help": "Updates are scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of what enters the updates."})
    lora_senses: str = field(
        default="full", metadata={"help": "How `train: lora` trains the sense and weight networks: full, or lora."}
    )

    def __post_init__(self):
        check_ranges(self, {"lora_r": COUNT, "lora_alpha": POSITIVE, "lora_dropout": BELOW_ONE})
        for name, allowed in (("train", TRAININGS), ("lora_senses", SENSE_TRAININGS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, but must be one of {allowed}.")


@dataclass
class TextData:
    """Text to train a language model on. `FREE` and `NAMED` fields as those of [`AdaptationData`]."""

    NAMED: ClassVar = ("dataset", "text_files")
    FREE: ClassVar = (*NAMED, "licence", "language", "num_proc")

    dataset: str | None = field(default=None, metadata={"help": "Hub dataset id, e.g. Skylion007/openwebtext."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of `dataset`, if it has some."})
    dataset_split: str = field(default="train", metadata={"help": "Split of `dataset`."})
    text_files: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Text (a document a line), JSONL or TSV files, compressed or not. Paths may hold environment "
            "variables."
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column of `dataset` and of JSONL files."})
    tsv_column: str = field(default="en", metadata={"help": "Column of TSV files."})
    tsv_keep: dict | None = field(
        default_factory=dict, metadata={"help": 'Rows of TSV files kept, e.g. {"licence_class": "open"}.'}
    )
    licence: str | None = field(default=None, metadata={"help": "Licence of the text, for the model card."})
    language: str = field(default="en", metadata={"help": "Language of the text, for the model card."})
    max_documents: int | None = field(
        default=None, metadata={"help": "First documents only; of a Hub `dataset`, no more than these are downloaded."}
    )
    block_size: int = field(default=512, metadata={"help": "Tokens of a training example."})
    held_out_blocks: int = field(default=200, metadata={"help": "Blocks kept for measuring perplexity."})
    num_proc: int = field(default=1, metadata={"help": "Processes that tokenize; the result does not depend on it."})

    def __post_init__(self):
        if isinstance(self.text_files, str):
            self.text_files = [self.text_files]
        if bool(self.dataset) == bool(self.text_files):
            raise ValueError(
                "Give exactly one of `dataset` (a Hub id) and `text_files` (local files); got "
                f"dataset={self.dataset!r} and {len(self.text_files)} text files."
            )
        for name, least in (("block_size", 2), ("held_out_blocks", 1), ("num_proc", 1), ("max_documents", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must be {least} or more.")


@dataclass
class PretrainingData(TextData):
    """The text of a pretraining, and the model it makes."""

    NAMED = (*TextData.NAMED, "model", "tokenizer")
    FREE = (*TextData.FREE, "model", "tokenizer")

    model: str | None = field(
        default=None,
        metadata={"help": "Go on from this model (Hub id or folder, also a checkpoint) instead of a fresh one."},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "Tokenizer to use (Hub id or folder). Default: that of `model`, or train a byte-level BPE."},
    )
    vocab_size: int = field(default=8192, metadata={"help": "Size of a tokenizer trained here, and of a fresh model."})
    senses: bool = field(
        default=True, metadata={"help": "A Backpack; false: its backbone alone, for baselines without senses."}
    )
    backbone_config: dict | None = field(
        default_factory=dict, metadata={"help": "Fields of the backbone's configuration (GPT-2 by default)."}
    )
    backpack_config: dict | None = field(
        default_factory=dict, metadata={"help": "Fields of BackpackConfig, e.g. num_senses."}
    )

    def __post_init__(self):
        super().__post_init__()
        self.backbone_config, self.backpack_config = self.backbone_config or {}, self.backpack_config or {}
        if self.model and (self.backbone_config or self.backpack_config):
            raise ValueError(
                f"`model` is {self.model!r}, which has a configuration: leave out `backbone_config` and "
                "`backpack_config`, or `model` to begin a fresh one."
            )
        if not self.senses and self.backpack_config:
            raise ValueError(
                f"`senses` is false, but `backpack_config` is {self.backpack_config}: leave out one of them."
            )
        if self.vocab_size < SMALLEST_VOCABULARY and not self.model and not self.tokenizer:
            raise ValueError(
                f"`vocab_size` is {self.vocab_size}, but a byte-level tokenizer has a token for each byte and two "
                f"special ones: {SMALLEST_VOCABULARY} or more."
            )


@dataclass
class PretrainingArguments(TrainingArguments):
    """TrainingArguments with `remove_unused_columns=False`, because the collator names the model's inputs."""

    remove_unused_columns: bool = False

    def __post_init__(self):
        check_training_arguments(self)
        refuse_smoothing(self)
        if what_reads_it(self) and self.metric_for_best_model not in (None, "loss", "eval_loss"):
            raise ValueError(
                f"`metric_for_best_model` is {self.metric_for_best_model!r}, but pretraining measures the loss alone: "
                "leave it out."
            )
        set_direction(self)
        super().__post_init__()


def refuse_smoothing(args) -> None:
    """`ValueError` for a smoothing of labels that the loss of pretraining and induction does not have."""
    if args.label_smoothing_factor:
        raise ValueError(
            f"`label_smoothing_factor` is {args.label_smoothing_factor}, but only adaptation smooths labels (`sensia "
            "adapt --label_smoothing`); leave it out."
        )


@dataclass
class InductionData(TextData):
    """The language model that gets senses, and the text they are trained on."""

    NAMED = (*TextData.NAMED, "model", "tokenizer")
    FREE = (*TextData.FREE, "model", "tokenizer")

    model: str | None = field(
        default=None, metadata={"help": "Causal language model without senses (Hub id or folder), or one begun here."}
    )
    tokenizer: str | None = field(default=None, metadata={"help": "Tokenizer; that of the model by default."})
    backpack_config: dict | None = field(
        default_factory=dict,
        metadata={"help": "Fields of BackpackConfig, e.g. num_senses, sense_intermediate_scale."},
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.model:
            raise ValueError("`model` is not set: name the language model that gets senses, as a Hub id or a folder.")
        self.backpack_config = self.backpack_config or {}
        if not self.backpack_config.get("residual_gate", True):
            raise ValueError(
                "`residual_gate` in `backpack_config` is false, but senses are added to a language model behind a "
                "gate; leave it out, or pretrain a Backpack without one (`sensia pretrain`)."
            )
        senses = self.backpack_config.get("num_senses", 2)
        if not isinstance(senses, int) or senses < 2:
            raise ValueError(
                f"`num_senses` in `backpack_config` is {senses!r}, but senses that differ are 2 or more of each word; "
                "16 by default."
            )


@dataclass
class InductionConfig(TrainingArguments):
    """
    Configuration of [`InductionTrainer`]: the fields of `TrainingArguments` and those of the loss.

    > Defaults that differ from `TrainingArguments`: `learning_rate=2e-4`, `weight_decay=0.1`, `warmup_steps=0.02` (a
    > share), `lr_scheduler_type="cosine"`, `max_steps=40_000` (as published), `seed=1234`, `use_cache=True`,
    > `remove_unused_columns=False`.

    Raises:
        `ValueError`: for values outside what a field's help allows.
    """

    distill_share: float = field(
        default=0.5, metadata={"help": "Share of distillation from the base in the loss; the rest is cross-entropy."}
    )
    distill_temperature: float = field(default=2.0, metadata={"help": "Temperature of the distillation, positive."})
    mixture_weight: float = field(
        default=1.0,
        metadata={"help": "Weight of the cross-entropy of the senses alone, as a Backpack's: they speak for words."},
    )
    diversity_weight: float = field(
        default=0.005, metadata={"help": "Weight of the mean squared cosine between the senses of a word."}
    )
    gate_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the gate (no weight decay); ten times `learning_rate` by default."},
    )
    open_gate: bool = field(
        default=True,
        metadata={
            "help": "Whether the gate is opened, in the end, as far as text kept apart is predicted no worse for it."
        },
    )
    train_backbone: bool = field(
        default=False, metadata={"help": "Whether the backbone is trained as well; with `distill_share` 0."}
    )
    train_embeddings: bool = field(
        default=False, metadata={"help": "Whether the word embeddings are trained; with `distill_share` 0."}
    )
    train_head: bool = field(
        default=False,
        metadata={
            "help": "Whether the head is trained; where it is tied, as the word embeddings; with `distill_share` 0."
        },
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
        check_training_arguments(self)
        refuse_smoothing(self)
        check_named(self, "perplexity")
        set_direction(self)
        super().__post_init__()
        check_ranges(self, INDUCTION_RANGES)
        if self.gate_learning_rate is None:
            self.gate_learning_rate = 10 * self.learning_rate
        if self.open_gate and self.dataloader_persistent_workers:
            raise ValueError(
                "`dataloader_persistent_workers` is true, but workers that outlive an evaluation would measure the "
                "held-out text again where `open_gate` asks for other; set one of them to false."
            )
        if self.base_parts_trained and self.distill_share > 0:
            raise ValueError(
                f"`train_{self.base_parts_trained[0]}` changes the base that `distill_share` distils from. Set "
                "`distill_share` to 0, or leave it false."
            )

    @property
    def base_parts_trained(self) -> list[str]:
        """What of the language model is trained beside its senses, among `backbone`, `embeddings` and `head`."""
        return [part for part in ("backbone", "embeddings", "head") if getattr(self, f"train_{part}")]
