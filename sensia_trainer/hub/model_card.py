"""The card of a trained model, rendered from its metrics file: every number in a card was measured and written there.

`metrics.json` holds `kind` (a key of `RENDERERS`), `model_name`, `base_model`, `languages`
{"source": code, "target": code}, `data`, `config`, `before`, `after`, `control`, `seconds`, `processes`, `versions`
and `command`, as the training scripts write them. Optional keys add to the card; what is absent is left out of it:

- `title`, else one is made of size and languages;
- `license` of the weights, else it follows from `data["licence"]`, the classes of `data["licence_classes"]` {class:
  pairs} and `base_licence` (see `licences.py`), and is "unknown" where that of the text is;
- `data`: `name` or `sources` (files), `pairs`, `licence`, `fingerprint`, `hub_id` (str or list), `counts`
  {name: number}, `filters` [{"filter": ..., "kept": ..., ...}], `corpora` {name: pairs}, `description` (sentences);
  other entries are listed as they are;
- `evaluation`: `name`, `type` (Hub id), `config`, `split`: the data set behind `before`, `after` and `control`;
- `benchmarks`: [{"name", "type", "split", "metric", "value", "interval", "control", "items", "protocol"}];
- `writing`: `fluency` and `generation` of an evaluation;
- `examples`: [[source sentence, its translation], ...] and `prompt`, for the snippets;
- `induced`: `steps`, `tokens`, `model`, `text`, `before` and `after` of senses that were given to the base before;
- `vocabulary`: what `extend_vocabulary` reports of new words, or `{"languages": {code: that}}`;
- of several languages: `languages` {"source": code, "targets": [code, …], "pairs": ["en-id", …]}, `by_pair` {pair:
  {"before", "after", "control", "data"}}, `matrix`: what `sensia evaluate` measures with `languages`;
- `repo_id` on the Hub, which the snippets then load;
- `hardware`, `energy_kwh`, `co2_eq_emissions` (grams), `figure` (a file of the folder), `base_model_relation`, `tags`.

Whatever stands in it is shown as it is: names are escaped, and none becomes Markdown or HTML.
"""

import math
import re
from pathlib import Path

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors import SafetensorError, safe_open

from ..languages import Language, language, named
from ..schedule import PHASES
from ..training.by_pair import with_drift
from ..utils.files import DELTA_FILE, read_json, without_folders, write_text
from ..utils.markdown import Markdown, code, escape, number, quoted
from .card_prose import (
    ENGLISH_EXAMPLES,
    MODEL_OF_DELTA,
    PARAPHRASES,
    beginning,
    data_text,
    examples,
    file_name,
    protocol,
    vocabulary_text,
    with_notice,
)
from .card_tables import (
    DATA_IN_PROSE,
    benchmark_table,
    constant_weights,
    eval_results,
    filter_table,
    phase_table,
    result_table,
    sense_table,
    settings_table,
    spent,
    trained_tokens,
    two_columns,
    writing_section,
)
from .languages import (
    FIGURE,
    joined_names,
    languages_of_card,
    languages_of_pair,
    matrix_table,
    pair_table,
    zero_shot_text,
)
from .licences import weights_licence


# The oldest and the newest release of transformers that the model code was tried with.
TESTED_TRANSFORMERS = ("5.8", "5.24")
# Up to so many parameters, a model shows how the method works and is of no other use.
DEMONSTRATION = 20_000_000
VOCABULARY_FIGURE = "vocabulary.png"
SIZES = {768: "small", 1024: "medium", 1280: "large"}  # by hidden size, as in Table 10

GATE = "Prediction"  # row of the first table, of models that got senses after their training

BACKPACK_TAGS = ["custom_code", "arxiv:2601.10310", "arxiv:2305.16765"]
SENTENCE_TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction"]


def adaptation_card(metrics: dict) -> str:
    """The card of an adapted model, from the contents of its `metrics.json`.

    Raises:
        `ValueError`: if a key that every card needs is missing; the message names it.
    """
    _require(metrics, "model_name", "base_model", "languages")
    metrics = with_drift(metrics)
    source, target = _languages(metrics)
    known = examples(languages_of_card(metrics)[1:]) if source.code == "en" else []
    pairs = metrics.get("examples") or known
    base = base_model_name(metrics["base_model"], metrics.get("base_is_folder", False))
    relation = metrics.get("base_model_relation", "finetune")
    values = {
        "base_id": base,
        "is_adapter": relation == "adapter",
        "base_model": _model_link(base),
        "examples": pairs,
        "prompt": metrics.get("prompt") or (beginning(pairs[0][1]) if pairs else ""),
        "phase_table": phase_table(metrics.get("config") or {}),
        "constant_weights": constant_weights(metrics.get("config") or {}),
        "lm_only": _is_lm_only(metrics.get("config") or {}),
        "shows_word": False,
        "induced": metrics.get("induced"),
        "gated": GATE in (metrics.get("model") or {}),
        "hard_negatives": (metrics.get("config") or {}).get("hard_negative_weight", 0) > 0,
    }
    tags = ["backpack", "sensia", "cross-lingual"]
    return _card("adaptation.md", metrics, source, target, values, _base_metadata(base, relation), tags)


def pretraining_card(metrics: dict) -> str:
    """The card of a model trained from scratch, from the contents of its `metrics.json`; raises as above."""
    _require(metrics, "model_name")
    has_senses = "Senses per word" in metrics.get("model", {"Senses per word": None})
    source = language((metrics.get("languages") or {"source": "en"})["source"])
    values = {"prompt": metrics.get("prompt") or "The old man", "has_senses": has_senses}
    pairs = list(zip(ENGLISH_EXAMPLES, PARAPHRASES, strict=True)) if source.code == "en" else []
    values |= {"is_adapter": False, "shows_word": True, "examples": metrics.get("examples") or pairs}
    tokens = trained_tokens(metrics)
    data = (metrics.get("data") or {}) | ({"tokens_trained_on": tokens} if tokens else {})
    tags = ["backpack" if has_senses else "baseline"]
    return _card("pretraining.md", metrics | {"data": data}, source, source, values, {}, tags, has_senses)


def baseline_card(metrics: dict) -> str:
    """The card of a model without senses that SENSIA is compared with, from its `metrics.json`; raises as above."""
    _require(metrics, "model_name", "base_model", "languages", "config")
    source, target = _languages(metrics)
    base = base_model_name(metrics["base_model"], metrics.get("base_is_folder", False))
    values = {"base_model": _model_link(base), "aligned": metrics["config"].get("w_context") != 0}
    metadata = _base_metadata(base, "finetune")
    return _card("baseline.md", metrics, source, target, values, metadata, ["baseline", "cross-lingual"], False)


def induction_card(metrics: dict) -> str:
    """The card of a language model that was given senses, from its `metrics.json`; raises as above."""
    _require(metrics, "model_name", "base_model", "config")
    source = language((metrics.get("languages") or {"source": "en"})["source"])
    base = base_model_name(metrics["base_model"], metrics.get("base_is_folder", False))
    parts = [part for part in ("backbone", "embeddings", "head") if metrics["config"].get(f"train_{part}")]
    spoken = metrics.get("sense_words") or {}
    values = {
        "base_model": _model_link(base),
        "senses": (metrics.get("model") or {}).get("Senses per word") or "several",
        "trained": f"Beside the senses, trained were: {', '.join(parts)}." if parts else "Nothing else was trained.",
        "gate_text": "text kept apart for it" if (metrics.get("data") or {}).get("gate_blocks") else "training text",
        "opened": _is_opened(metrics.get("after") or {}),
        "senses_alone": metrics["config"].get("mixture_weight"),
        "word_table": sense_table(spoken.get("words") or []),
        "common_share": spoken.get("common_share"),
        "prompt": metrics.get("prompt") or "The old man",
        **{"is_adapter": False, "shows_word": True, "examples": []},
    }
    tokens = trained_tokens(metrics)
    data = (metrics.get("data") or {}) | ({"tokens_trained_on": tokens} if tokens else {})
    metadata = _base_metadata(base, "finetune")
    return _card("induction.md", metrics | {"data": data}, source, source, values, metadata, ["backpack", "senses"])


def _is_opened(after: dict) -> bool:
    return after.get("trained_gate", after.get("gate")) != after.get("gate")


RENDERERS = {
    "adaptation": adaptation_card,
    "pretraining": pretraining_card,
    "induction": induction_card,
    "baseline": baseline_card,
}


def render_card(folder, metrics: dict | None = None, **changes) -> str:
    """The card of a model folder, from its `metrics.json`, `config.json` and weights.

    Args:
        folder: The model folder.
        metrics (`dict`, *optional*): In place of the file's, before there is one.
        changes: Entries that replace those of the metrics where they are not None: `repo_id` ("owner/name": the card
            of that repository, whose snippets load it), `license`, `base_model`, `title`.

    Raises:
        `ValueError`: where there is no `metrics.json`, or its `kind` is unknown.
    """
    folder = Path(folder)
    if metrics is None and not (folder / "metrics.json").is_file():
        raise ValueError(f"{folder} has no metrics.json; a card is rendered from what a training script measured.")
    metrics = dict(read_json(folder / "metrics.json") if metrics is None else metrics)
    metrics |= {name: value for name, value in changes.items() if value is not None}
    if metrics.get("kind") not in RENDERERS:
        raise ValueError(
            f"`kind` in {folder / 'metrics.json'} is {metrics.get('kind')!r}; allowed: {list(RENDERERS)}."
        )
    if metrics.get("repo_id"):
        metrics["model_name"] = metrics["repo_id"].split("/")[-1]
    metrics["model"] = model_facts(folder)
    metrics.setdefault("parameters", metrics["model"].get("Parameters"))
    if "Adapter" in metrics["model"]:
        metrics["base_model_relation"] = "adapter"
    if (folder / DELTA_FILE).is_file():
        metrics["delta"] = read_json(folder / DELTA_FILE)
    if not metrics.get("figure"):
        figures = sorted(file.name for file in folder.glob("*.png"))
        metrics["figure"] = next((name for name in figures if "training" in name), None)
    if (folder / f"{FIGURE}.png").is_file():
        metrics["matrix_figure"] = f"{FIGURE}.png"
    if (folder / VOCABULARY_FIGURE).is_file():
        metrics["vocabulary_figure"] = VOCABULARY_FIGURE
    return RENDERERS[metrics["kind"]](metrics)


def is_as_rendered(folder) -> bool:
    """Whether the card of a folder is [`render_card`]'s, which nobody edited."""
    card = Path(folder) / "README.md"
    try:
        return card.is_file() and card.read_text(encoding="utf-8") == render_card(folder)
    except ValueError:  # without metrics, or with ones that lack what a card needs
        return False


def write_card(folder, repo_id: str | None = None, metrics: dict | None = None) -> Path:
    """Writes [`render_card`] as README.md of the folder and returns its path."""
    card = Path(folder) / "README.md"
    write_text(card, render_card(folder, metrics, repo_id=repo_id))
    return card


def model_facts(folder) -> dict:
    """Parameters, weights' dtype and sizes of a model folder, for the card's first table; of a delta, those of the
    model that it is put together to."""
    folder = Path(folder)
    if (folder / DELTA_FILE).is_file():
        gate = {label: value for label, value in config_facts(folder).items() if label == GATE}
        return read_json(folder / DELTA_FILE)["model"] | gate
    if (folder / "adapter_config.json").is_file():
        config = read_json(folder / "adapter_config.json")
        facts = {"Adapter": config["peft_type"], "Rank": config.get("r"), "Adapted modules": config["target_modules"]}
        return _weight_facts(folder) | {label: value for label, value in facts.items() if value is not None}
    return _weight_facts(folder) | config_facts(folder)


def config_facts(folder) -> dict:
    """The sizes of a model folder that its `config.json` tells, for the card's first table."""
    config = read_json(Path(folder) / "config.json")
    backbone = config.get("backbone_config") or config
    names = {
        "Layers": ("num_hidden_layers", "n_layer"),
        "Hidden size": ("hidden_size", "n_embd"),
        "Attention heads": ("num_attention_heads", "n_head"),
        "Positions": ("max_position_embeddings", "n_positions"),
        "Vocabulary": ("vocab_size",),
    }
    facts = {"Backbone": backbone.get("model_type"), "Senses per word": config.get("num_senses")}
    if config.get("residual_gate"):
        facts[GATE] = "head(b + g m): the senses' mixture m behind a gate g, beside the base's own state b"
    for label, keys in names.items():
        facts[label] = next((backbone[key] for key in keys if key in backbone), None)
    return {label: value for label, value in facts.items() if value is not None}


def _weight_facts(folder: Path) -> dict:
    parameters, types = 0, set()
    for weights in folder.glob("*.safetensors"):
        try:
            with safe_open(weights, framework="np") as tensors:
                slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118 (not a dict)
                parameters += sum(math.prod(part.get_shape()) for part in slices)
                types |= {part.get_dtype() for part in slices}
        except SafetensorError as error:
            raise ValueError(f"The weights {str(weights)!r} are damaged: {error}.") from error
    return {"Parameters": parameters, "Stored as": ", ".join(sorted(types))} if types else {}


# Where recipes have their models, which look like ids of the Hub elsewhere.
FOLDERS_HERE = ("model_cards/", "outputs/")


def base_model_name(base: str, is_folder: bool = False) -> str:
    """The Hub id of a base model; for a folder, there now or when the run began (`is_folder`), its name."""
    base = str(base).rstrip("/")
    is_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base) and not base.startswith(FOLDERS_HERE)
    return base if is_id and not is_folder and not Path(base).is_dir() else Path(base).resolve().name


def is_hub_id(name) -> bool:
    """Whether `name` can be that of a repository on the Hub: owner/name."""
    return isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


def made_title(metrics: dict, source, target) -> str:
    """What a model is, by size and languages: "Backpack micro, English–Indonesian"."""
    facts = metrics.get("model") or {}
    kind = "Backpack"
    if metrics.get("kind") == "baseline" or "Senses per word" not in (facts or {"Senses per word": 0}):
        kind = {"gpt2": "GPT-2"}.get(facts.get("Backbone"), str(facts.get("Backbone") or "Language model"))
    parameters = metrics.get("parameters") or 0
    counted = f"{parameters / 1e9:.2g}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M" if parameters else ""
    size = SIZES.get(facts.get("Hidden size"), counted)
    size = "micro" if 0 < parameters < DEMONSTRATION else size
    names = source.name if source == target else f"{source.name}–{target.name}"
    method = ""
    if metrics.get("kind") == "baseline":
        method = "dense alignment (MCL)" if metrics["config"].get("w_context") != 0 else "fine-tuned"
    elif metrics.get("base_model_relation") == "adapter":
        method = "adapter"
    elif source != target and _is_lm_only(metrics.get("config") or {}):
        method = "language modelling alone"
    return ", ".join(filter(None, (" ".join(filter(None, (kind, size))), names, method)))


def _card(
    template: str, metrics: dict, source, target, values: dict, metadata: dict, tags: list[str], uses_backpack=True
):
    data = metrics.get("data") or {}
    name = file_name(data.get("name") or "")
    held_out = f"held-out part of {name or 'the training data'}"
    by_pair = metrics.get("by_pair") or {}
    results = []
    for pair, one in by_pair.items():
        of_pair = metrics | {"after": one["after"], "benchmarks": []}
        found = eval_results(of_pair, *languages_of_pair(pair), held_out)
        results += [result for result in found if result not in results]  # the source may be the same in all
    results += eval_results(metrics | ({"after": None} if by_pair else {}), source, target, held_out)
    hub_ids = data.get("hub_id") or []
    followed = weights_licence(data, metrics.get("base_licence"))
    licence = {"license": metrics["license"]} if metrics.get("license") else followed
    parameters = metrics.get("parameters") or 0
    is_adapter, delta = metrics.get("base_model_relation") == "adapter", metrics.get("delta")
    has_vectors = uses_backpack and not is_adapter and not delta
    both_sides = bool((metrics.get("config") or {}).get("source_lm_weight"))
    values |= {
        "title": metrics.get("title") or made_title(metrics, source, target),
        "repo": MODEL_OF_DELTA if delta else metrics.get("repo_id") or metrics["model_name"],
        "source": source.name,
        "target": target.name,
        "number": number,
        "code": code,
        "quoted": quoted,
        "demonstration": parameters if 0 < parameters <= DEMONSTRATION else 0,
        "tested": "{} to {}".format(*TESTED_TRANSFORMERS),
        "stored_as": (metrics.get("model") or {}).get("Stored as", ""),
        "pairs": data.get("pairs"),
        "data_name": name,
        "model_table": two_columns(metrics.get("model") or {}, "model"),
        "data_text": data_text(data, licence, followed),
        "data_table": two_columns({k: v for k, v in data.items() if k not in DATA_IN_PROSE}, "data"),
        "filter_table": filter_table(data),
        "corpus_table": two_columns(data.get("corpora") or {}, "corpus", "pairs"),
        "config_table": settings_table(metrics),
        "lm_side": "both sides" if both_sides else f"the {target.name} side",
        "predicted": "both languages'" if both_sides else target.name,
        "pools_mixture": (metrics.get("config") or {}).get("sense_pooling") == "mixture",
        "figure": metrics.get("figure"),
        "vocabulary": vocabulary_text(metrics, source.name, target.name),
        "vocabulary_figure": metrics.get("vocabulary_figure"),
        "protocol": protocol(metrics),
        "result_table": pair_table(metrics) or result_table(metrics, source, target),
        "matrix_table": matrix_table(metrics),
        "matrix_kinds": list(metrics.get("matrix") or {}),
        "zero_shot": Markdown(zero_shot_text(metrics)),
        "matrix_figure": metrics.get("matrix_figure"),
        "benchmark_table": benchmark_table(metrics.get("benchmarks") or []),
        "writing": writing_section(metrics.get("writing") or {}),
        "control": bool(metrics.get("control")),
        "spent_table": two_columns(spent(metrics), "spent"),
        "command": Markdown(" ".join(without_folders(metrics.get("command") or "").split())),
        "needs_data": "${SENSIA_DATA}" in str(data),
        "version_table": two_columns(metrics.get("versions") or {}, "package", "version"),
    }
    loader = PackageLoader("sensia_trainer.hub")
    options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True, "finalize": escape}
    body = Environment(loader=loader, **options).get_template(template).render(values)
    body = with_notice(body, delta) if delta else body
    tags = (
        tags
        + ["delta"] * bool(delta)
        + (BACKPACK_TAGS if uses_backpack else [])
        + (SENTENCE_TAGS if has_vectors else [])
    )
    codes = [one.code for one in ((source, *languages_of_card(metrics)[1:]) if metrics.get("languages") else [source])]
    scripts = [code.replace("_", "-") for code in codes if "_" in code]  # the Hub has no scripts in `language`
    metadata |= {"language_bcp47": scripts} if scripts else {}
    card = ModelCardData(
        language=list(dict.fromkeys(code.partition("_")[0] for code in codes)),
        **licence,
        library_name="sensia" if delta else "peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        datasets=([hub_ids] if isinstance(hub_ids, str) else list(hub_ids)) or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=tags + list(metrics.get("tags") or []),
        model_name=metrics["model_name"],
        eval_results=results or None,
        co2_eq_emissions=metrics.get("co2_eq_emissions"),
        **metadata,
    ).to_dict()
    card.pop("model_name", None)  # stands in the model index; without one the Hub has no field for it
    parts = re.split(r"^```", body, flags=re.MULTILINE)  # blank lines are merged in prose and kept in code
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]
    return f"---\n{ModelCardData(**card).to_yaml()}\n---\n\n{'```'.join(parts).strip()}\n"


def _languages(metrics: dict) -> tuple[Language, Language]:
    codes = metrics["languages"]
    if "targets" in codes:
        source, *targets = languages_of_card(metrics)
        return source, targets[0]._replace(name=joined_names(targets))
    return language(codes["source"]), named(codes["target"], codes.get("target_name"))


def _require(metrics: dict, *names: str) -> None:
    missing = [name for name in names if not metrics.get(name)]
    if missing:
        raise ValueError(f"The metrics lack {missing}; a card cannot be rendered without them.")


def _model_link(name: str) -> Markdown:
    return Markdown(f"[{name}](https://huggingface.co/{name})") if is_hub_id(name) else code(name)


def _base_metadata(base: str, relation: str) -> dict:
    """What tells the Hub of the base model: its id. One that is not on the Hub stands in the body alone."""
    return {"base_model": base, "base_model_relation": relation} if is_hub_id(base) else {}


def _is_lm_only(config: dict) -> bool:
    """Whether both contrastive weights are zero in every phase: the control."""
    if config.get("w_sense") == config.get("w_context") == 0:
        return True
    weights = [config.get(f"{phase}_weights") for phase in PHASES]
    return all(weights) and not any(any(triple[:2]) for triple in weights)
