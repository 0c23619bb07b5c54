"""What `sensia evaluate` is given. Quick to import, so that its help comes fast."""

from dataclasses import dataclass, field


CHOICE_TASKS = ("xcopa", "copa", "xstorycloze", "xstorycloze_like", "belebele", "global_mmlu_lite")
PAIR_TASKS = ("tatoeba",)
GENERATION_TASKS = ("continuation", "xlsum")
KNOWN_TASKS = (*CHOICE_TASKS, *PAIR_TASKS, *GENERATION_TASKS)


@dataclass
class EvaluationConfig:
    """What to evaluate.

    `data_dir` may hold environment variables: `${SENSIA_DATA}/eval`.
    """

    model: str = field(metadata={"help": "Model folder or Hub id; any causal language model."})
    output: str = field(metadata={"help": "JSON file to write; per-item predictions go beside it as *.items.json."})
    target: str = field(metadata={"help": "Language evaluated, e.g. ind_Latn or id."})
    source: str = field(default="eng_Latn", metadata={"help": "The other side of the bitext."})
    languages: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Several languages, which are measured with each other on FLORES-200: a matrix of retrieval "
            "between all of them and `source`, and bits per byte of each."
        },
    )
    name: str | None = field(default=None, metadata={"help": "Name in tables; the last part of `model` by default."})
    tokenizer: str | None = field(default=None, metadata={"help": "Tokenizer, if not in the model folder."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder with local data; the Hub by default."})
    flores: bool = field(default=True, metadata={"help": "Whether to evaluate on FLORES-200."})
    flores_purpose: str = field(default="reporting", metadata={"help": "reporting (devtest) or selection (dev)."})
    tasks: list[str] = field(
        default_factory=lambda: ["xcopa", "xstorycloze", "belebele"],
        metadata={
            "help": f"Of {', '.join(KNOWN_TASKS)}; in another language as task:code, e.g. copa:en (which needs "
            "`data_dir`: the Hub hides its labels); none of them where nothing follows."
        },
    )
    bitext: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Parallel text of your own: a TSV, JSONL or TMX file, two line-aligned files, a Hub id, or the "
            "fields of a source as JSON, as `adapt` takes them."
        },
    )
    bitext_name: str = field(default="own_bitext", metadata={"help": "What the results call it."})
    bitext_split: str = field(default="train", metadata={"help": "Split of a Hub or saved dataset."})
    choices: str | None = field(
        default=None, metadata={"help": "Multiple-choice file of your own: JSONL, JSON, CSV or TSV, columns by name."}
    )
    choices_name: str = field(default="own_choices", metadata={"help": "What the results call it."})
    choices_context: str = field(
        default="{question}", metadata={"help": "What stands before a choice, columns in braces."}
    )
    choices_answers: list[str] = field(
        default_factory=lambda: [" {choices}"],
        metadata={"help": "A template a choice (' {a}' ' {b}'), or one with a column that holds a list."},
    )
    choices_label: str = field(default="label", metadata={"help": "Column of the right one: number, letter or text."})
    choices_first_label: int = field(default=0, metadata={"help": "Number of the first choice, 0 or 1."})
    choices_validation: str | None = field(
        default=None, metadata={"help": "A file of the same kind, to search lambda and alpha on."}
    )
    scoring_lambda: float | None = field(default=None, metadata={"help": "Lambda of Appendix E, given for all tasks."})
    scoring_alpha: float | None = field(default=None, metadata={"help": "Alpha of Appendix E, likewise."})
    templates: list[str] = field(
        default_factory=lambda: ["plain", "harness"], metadata={"help": "plain, harness, goldfish (reading tasks)."}
    )
    questions: str = field(default="corrected", metadata={"help": "XCOPA's question field: corrected or published."})
    grid_search: bool = field(default=True, metadata={"help": "Search lambda and alpha on the validation split."})
    generate: bool = field(
        default=True, metadata={"help": "Whether to write continuations: Appendix F's prompts, and 200 measured."}
    )
    max_items: int | None = field(default=None, metadata={"help": "First items of each task only."})
    batch_size: int = field(
        default=32, metadata={"help": "Items in a batch; only sampled continuations depend on it."}
    )
    max_length: int | None = field(default=None, metadata={"help": "The model's positions by default."})
    context_state: str | None = field(
        default=None, metadata={"help": "Backpacks: mixture, backbone or combined; as trained."}
    )
    context_layer: int | None = field(
        default=None,
        metadata={"help": "Context vectors from the state after this many blocks; as trained, or the last state."},
    )
    pooling: str | None = field(
        default=None, metadata={"help": "Backpacks: magnitude, contextual or mixture; as trained."}
    )
    temperature: float | None = field(
        default=None, metadata={"help": "Backpacks: softmax temperature of the pooling; as trained."}
    )
    dtype: str = field(default="float32", metadata={"help": "Weights' dtype; metrics are float32 in any case."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, ..."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})
    random_weights: bool = field(default=False, metadata={"help": "Use only the config of `model`: a chance line."})
    random_row: bool = field(
        default=True, metadata={"help": "Whether retrieval also stands beside that of the same model, untrained."}
    )
    check_languages: bool = field(default=True, metadata={"help": "Refuse files in the wrong language."})
    bootstrap: int = field(default=1000, metadata={"help": "Resamples for intervals."})
    seed: int = 0
    progress: bool = True
