"""Is sense geometry preserved (Tables 3-5, Figures 3-4), and are the senses senses?

    sensia analyze analyze --model model_cards/backpack-micro-sensia-id \\
        --control outputs/lm-only-id --base model_cards/backpack-micro-en --output results/analysis/en-id.json
    sensia analyze --model model_cards/backpack-micro-en --output results/analysis/senses-en.json \\
        --benchmarks disambiguation substitution steering --coarsewsd ${SENSIA_DATA}/eval/coarsewsd20 \\
        --swords ${SENSIA_DATA}/eval/swords/swords-v1.1_dev.json.gz
    sensia analyze render results/analysis

Report and figures show all results in the folder of `output`; the last form only redraws them. Without a network,
`examples/build_offline_encoder.py` makes an encoder for the word alignment.
"""

from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ..analysis import BENCHMARKS, DEFINITIONS
from ..languages import language
from ..utils.arguments import Parser, recipe_parser
from ..utils.files import check_writable, read_json, text_lines, with_note, write_json, write_text
from ..utils.recipes import expand_variables, parse_recipe


PACKAGES = ("torch", "transformers", "numpy", "simalign")


@dataclass
class AnalysisArguments:
    """Paths may name environment variables: `${SENSIA_DATA}/eval/flores200/devtest/ind_Latn.devtest`."""

    model: str = field(metadata={"help": "The adapted Backpack: folder or Hub id"})
    output: str = field(metadata={"help": "JSON file to write; report and figures go beside it"})
    source_file: str = field(default="", metadata={"help": "Source sentences, one a line"})
    target_file: str = field(default="", metadata={"help": "Their translations, line by line"})
    target_language: str = field(default="", metadata={"help": "Its code: ISO 639-1, ISO 639-3 or FLORES-200"})
    benchmarks: list[str] = field(
        default_factory=list,
        metadata={"help": f"Instead of the geometry, benchmarks of the senses themselves: {', '.join(BENCHMARKS)}"},
    )
    coarsewsd: str = field(default="", metadata={"help": "Folder of CoarseWSD-20, for disambiguation and steering"})
    swords: str = field(default="", metadata={"help": "File of SWORDS, for substitution"})
    max_items: int | None = field(default=None, metadata={"help": "Of the benchmarks: sentences a word, targets"})
    control: str = field(default="", metadata={"help": "The same base trained on the same data by the LM loss alone"})
    base: str = field(default="", metadata={"help": "The English Backpack both started from"})
    vocabulary: str = field(
        default="",
        metadata={
            "help": "Folder `vocabulary` of the run that gave the models new words: the base gets them too, and word "
            "pairs that they were not told before training are measured apart"
        },
    )
    source_language: str = field(default="en", metadata={"help": "Its code: ISO 639-1, ISO 639-3 or FLORES-200"})
    encoder: str = field(default="microsoft/Multilingual-MiniLM-L12-H384", metadata={"help": "For word alignment"})
    layer: int = field(default=8, metadata={"help": "Hidden layer of the encoder that is compared"})
    minimum_count: int = field(default=5, metadata={"help": "Occurrences a word needs on its side"})
    temperature: float | None = field(
        default=None,
        metadata={"help": "Temperature of the sense probabilities; by default that of the model's training"},
    )
    definitions: list[str] = field(
        default_factory=lambda: list(DEFINITIONS),
        metadata={"help": "Of sense probabilities; the first is reported"},
    )
    top_k: int = field(default=1, metadata={"help": "Senses kept by the top-k mixture"})
    max_sentences: int = field(default=0, metadata={"help": "Use only the first sentences; 0 for all"})
    batch_size: int = 16
    iterations: int = field(default=10_000, metadata={"help": "Bootstrap resamples"})
    seed: int = 0
    device: str = "cpu"
    cache_dir: str = field(default=".cache/alignment", metadata={"help": "Where word alignments are kept"})


def check(arguments):
    """Refuses what would fail after an hour, or mean nothing."""
    missing = [name for name in ("source_file", "target_file", "target_language") if not getattr(arguments, name)]
    if missing and not arguments.benchmarks:
        raise ValueError(
            f"`{missing[0]}` is not set: the geometry of senses is measured on translated sentences. Give "
            "`source_file`, `target_file` and `target_language`, or `benchmarks`."
        )
    for name in () if arguments.benchmarks else ("source_language", "target_language"):
        try:
            language(getattr(arguments, name))
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from None
    for name, least in (
        ("minimum_count", 1),
        ("top_k", 1),
        ("batch_size", 1),
        ("iterations", 1),
        ("max_sentences", 0),
    ):
        if getattr(arguments, name) < least:
            raise ValueError(f"`{name}` is {getattr(arguments, name)}, but must be {least} or more.")
    if not arguments.definitions or set(arguments.definitions) - set(DEFINITIONS):
        raise ValueError(f"`definitions` is {arguments.definitions}, but must be of {list(DEFINITIONS)}.")
    if arguments.temperature is not None and not arguments.temperature > 0:
        raise ValueError(f"`temperature` is {arguments.temperature}, but must be above 0.")
    check_writable(arguments.output)
    check_report(Path(arguments.output).parent)


def load_backpack(path):
    from ..utils.models import load_model

    model = load_model(path)
    if not hasattr(model, "get_senses"):
        raise ValueError(
            f"{str(path)!r} is a {type(model).__name__}, which has no senses to analyse. Give a Backpack "
            "(`BackpackForCausalLM.from_backbone` adds senses to a language model)."
        )
    return model


def run(arguments):
    check(arguments)
    return run_on_senses(arguments) if arguments.benchmarks else run_on_geometry(arguments)


def run_on_senses(arguments):
    """The benchmarks of one model, each written when it is done; those that `output` has of this very model, data and
    settings are not run again."""
    from ..analysis.benchmarks import data_fingerprints, load_benchmarks, run_benchmarks
    from ..training.runs import weights_fingerprint
    from ..utils.models import load_device, load_tokenizer

    folders = {name: expand_variables(getattr(arguments, name)) for name in ("coarsewsd", "swords")}
    data = load_benchmarks(arguments.benchmarks, **folders, max_items=arguments.max_items)
    model = load_backpack(arguments.model).to(load_device(arguments.device))
    settings = {name: getattr(arguments, name) for name in ("batch_size", "iterations", "seed")}
    tokenizer = load_tokenizer(arguments.model, model)
    result = {
        "kind": "sense_benchmarks",
        "model": Path(arguments.model).resolve().name,
        "weights": weights_fingerprint(model),
        "settings": settings | {"max_items": arguments.max_items},
        "versions": {name: version(name) for name in PACKAGES if find_spec(name)},
    }
    digests = data_fingerprints(arguments.benchmarks, data)
    result |= measured_before(Path(arguments.output), result, digests)
    for name in arguments.benchmarks:
        if name not in result:
            result |= run_benchmarks(model, tokenizer, [name], data, **settings, progress=True)
            result["data"] = result.get("data", {}) | {name: digests[name]}
            write_json(arguments.output, result, indent=1)
    return result


def measured_before(output: Path, about: dict, digests: dict[str, str]) -> dict:
    """The benchmarks that a file of results has about the same model and settings, by their names, and `data`, the
    fingerprint of what each was measured on; of those in `digests`, what was measured on other data is left out."""
    try:
        found = read_json(output)
        same = all(found[name] == value for name, value in about.items())
        data = found.get("data", {})
        kept = [name for name in BENCHMARKS if name in found and digests.get(name) in (None, data.get(name))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    data = {name: data[name] for name in kept if name in data}
    return {name: found[name] for name in kept} | {"data": data} if same and kept else {}


def run_on_geometry(arguments):
    """All analyses of a model on translated sentences, beside its control."""
    from ..analysis.analyse import analyse
    from ..analysis.corpus import AlignedCorpus, check_same_vocabulary, told_pairs
    from ..evaluation.batching import max_positions
    from ..evaluation.vectors import DEFAULTS, vectors_of
    from ..utils.models import load_device, load_tokenizer
    from ..vocabulary.extension import apply_extension, load_extension

    files = (expand_variables(file) for file in (arguments.source_file, arguments.target_file))
    sides = [text_lines(file) for file in files]
    if not sides[0] or len(sides[0]) != len(sides[1]):
        raise ValueError(
            "`source_file` and `target_file` must be translations of each other, line by line: "
            f"{arguments.source_file} has {len(sides[0])} lines and {arguments.target_file} {len(sides[1])}."
        )
    sides = [side[: arguments.max_sentences or None] for side in sides]
    codes = {name: language(getattr(arguments, name)).code for name in ("source_language", "target_language")}
    device = load_device(arguments.device)
    paths = {name: getattr(arguments, name) for name in ("model", "control", "base")}
    models = {name: load_backpack(path).to(device) for name, path in paths.items() if path}
    if arguments.top_k > (fewest := min(model.config.num_senses for model in models.values())):
        raise ValueError(f"`top_k` is {arguments.top_k}, but a word has {fewest} senses: give that or less.")
    if fewest < 3:
        raise ValueError(f"How the senses of a word are arranged takes three of them, but a model has {fewest}.")
    tokenizers = {name: load_tokenizer(paths[name], model) for name, model in models.items()}
    extension = load_extension(expand_variables(arguments.vocabulary)) if arguments.vocabulary else None
    if extension and "base" in models and len(tokenizers["base"]) == extension.report["first_token"]:
        apply_extension(models["base"], extension)
        tokenizers["base"] = extension.tokenizer
    check_same_vocabulary(tokenizers)
    corpus = AlignedCorpus(
        tokenizers["model"],
        *sides,
        *codes.values(),
        arguments.encoder,
        layer=arguments.layer,
        minimum_count=arguments.minimum_count,
        max_length=max_positions(models["model"]),
        cache_dir=arguments.cache_dir,
        device=str(device),
        progress=True,
    )
    names = ("definitions", "temperature", "top_k", "batch_size", "iterations", "seed")
    settings = {name: getattr(arguments, name) for name in names}
    if settings["temperature"] is None:
        settings["temperature"] = (DEFAULTS | vectors_of(arguments.model))["temperature"]
    result = {
        "kind": "analysis",
        **codes,
        "models": {name: Path(path).resolve().name if path else None for name, path in paths.items()},
        "versions": {name: version(name) for name in PACKAGES if find_spec(name)},
    }
    told = None
    if extension and extension.mixture is not None:
        told = told_pairs(corpus, extension.tokenizer, extension.mixture)
    beside = {name: models.get(name) for name in ("control", "base")}
    return result | analyse(models["model"], corpus, **beside, told=told, **settings, progress=True)


def check_report(folder: Path) -> None:
    """Refuses a folder whose README.md tells of something else: it would be written over."""
    from ..analysis.summary import TITLE

    report = folder / "README.md"
    if report.is_file() and not report.read_text(encoding="utf-8", errors="replace").startswith(TITLE):
        raise ValueError(
            f"The report of the analyses in {str(folder)!r} would replace its README.md, which is of something else: "
            "name a file in a folder of its own, such as analysis/result.json."
        )


def _content(file):
    try:
        return read_json(file)
    except ValueError:  # not whole, so none of ours
        return None


def render(folder):
    check_report(folder)
    from ..analysis.benchmarks import render_benchmarks
    from ..analysis.drawings import save_figures
    from ..analysis.summary import TITLE, render_report

    contents = [content for content in map(_content, sorted(folder.glob("*.json"))) if isinstance(content, dict)]
    results = [content for content in contents if content.get("kind") == "analysis"]
    benchmarks = [content for content in contents if content.get("kind") == "sense_benchmarks"]
    if not (results or benchmarks):
        raise ValueError(f"There are no results of an analysis in {folder}.")
    if results:
        save_figures(results, folder / "figures")
    report = render_report(results, folder) if results else f"{TITLE}\n"
    parts = [part for part in (report, render_benchmarks(benchmarks)) if part]
    write_text(folder / "README.md", with_note("\n".join(parts), folder))
    print(f"Report and figures of {len(results) + len(benchmarks)} result(s): {folder / 'README.md'}")


def parser():
    return recipe_parser((AnalysisArguments,), prog="sensia analyze", description=__doc__)


def main(argv):
    if argv[:1] == ["render"]:
        rendering = Parser(prog="sensia analyze render", description="Redraw report and figures of results.")
        rendering.add_argument("folder", type=Path, help="folder of results")
        return render(rendering.parse_args(argv[1:]).folder)
    (arguments,) = parse_recipe(parser(), argv)
    output = Path(arguments.output)
    if output.suffix != ".json":
        raise ValueError(f"`output` must be a .json file, got {arguments.output!r}.")
    result = run(arguments)
    write_json(output, result, indent=1)
    render(output.parent)
