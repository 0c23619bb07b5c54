"""Is sense geometry preserved? Tables 3-5 and Figures 3-4 for an adapted Backpack beside its LM-only control.

    python examples/analyze.py --model model_cards/backpack-micro-sensia-id --control runs/lm-only-id \\
        --base model_cards/backpack-micro-en --source_file eng_Latn.devtest --target_file ind_Latn.devtest \\
        --target_language id --encoder microsoft/Multilingual-MiniLM-L12-H384 --output_dir analysis

Run it once for each language with the same `output_dir`: the report and the figures show all results in that folder.
`--render_only` redraws them from the results that are there. Without a network, `examples/build_offline_encoder.py`
makes an encoder. Anything in a YAML file of these fields may be given as first argument.
"""

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from transformers import AutoTokenizer

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.analysis.corpus import AlignedCorpus
from sensia_trainer.analysis.figures import save_figures
from sensia_trainer.analysis.report import render_report
from sensia_trainer.analysis.suite import analyse
from sensia_trainer.recipes import parse_recipe


@dataclass
class AnalysisArguments:
    output_dir: str = field(metadata={"help": "Folder of results, report and figures"})
    model: str = field(default="", metadata={"help": "The adapted Backpack: folder or Hub id"})
    control: str = field(default="", metadata={"help": "The same base trained on the same data by the LM loss alone"})
    base: str = field(default="", metadata={"help": "The English Backpack both started from"})
    source_file: str = field(default="", metadata={"help": "Source sentences, one a line"})
    target_file: str = field(default="", metadata={"help": "Their translations, line by line"})
    source_language: str = field(default="en", metadata={"help": "ISO 639-1 code"})
    target_language: str = field(default="", metadata={"help": "ISO 639-1 code"})
    encoder: str = field(default="microsoft/Multilingual-MiniLM-L12-H384", metadata={"help": "For word alignment"})
    layer: int = field(default=8, metadata={"help": "Hidden layer of the encoder that is compared"})
    minimum_count: int = field(default=5, metadata={"help": "Occurrences a word needs on its side"})
    temperature: float = field(default=0.7, metadata={"help": "Temperature of the sense probabilities"})
    top_k: int = field(default=1, metadata={"help": "Senses kept by the top-k mixture"})
    max_sentences: int = field(default=0, metadata={"help": "Use only the first sentences; 0 for all"})
    batch_size: int = 16
    iterations: int = field(default=10_000, metadata={"help": "Bootstrap resamples"})
    seed: int = 0
    device: str = "cpu"
    cache_dir: str = field(default=".cache/alignment", metadata={"help": "Where word alignments are kept"})
    render_only: bool = field(default=False, metadata={"help": "Only redraw report and figures"})


def read_lines(path, limit):
    return Path(path).read_text(encoding="utf-8").splitlines()[: limit or None]


def run(arguments, output_dir):
    for name in ("model", "source_file", "target_file", "target_language"):
        if not getattr(arguments, name):
            raise ValueError(f"`{name}` is missing: an analysis needs it (or give --render_only).")
    paths = {name: getattr(arguments, name) for name in ("model", "control", "base")}
    models = {
        name: BackpackForCausalLM.from_pretrained(path).to(arguments.device) for name, path in paths.items() if path
    }
    corpus = AlignedCorpus(
        AutoTokenizer.from_pretrained(arguments.model),
        read_lines(arguments.source_file, arguments.max_sentences),
        read_lines(arguments.target_file, arguments.max_sentences),
        arguments.source_language,
        arguments.target_language,
        arguments.encoder,
        layer=arguments.layer,
        minimum_count=arguments.minimum_count,
        max_length=models["model"].config.get_text_config(decoder=True).max_position_embeddings,
        cache_dir=arguments.cache_dir,
        device=arguments.device,
        progress=True,
    )
    result = {
        "kind": "analysis",
        "source_language": arguments.source_language,
        "target_language": arguments.target_language,
        "models": {name: Path(path).name if path else None for name, path in paths.items()},
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "scipy")},
    }
    settings = {
        name: getattr(arguments, name) for name in ("temperature", "top_k", "batch_size", "iterations", "seed")
    }
    result |= analyse(
        models["model"],
        corpus,
        control=models.get("control"),
        base=models.get("base"),
        **settings,
        progress=True,
    )
    file = output_dir / f"{arguments.source_language}-{arguments.target_language}.json"
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv=None):
    (arguments,) = parse_recipe((AnalysisArguments,), argv, description=__doc__.splitlines()[0])
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if not arguments.render_only:
        run(arguments, output_dir)
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(output_dir.glob("*-*.json"))]
    if not results:
        raise ValueError(f"There are no results in {output_dir} to render.")
    (output_dir / "README.md").write_text(render_report(results), encoding="utf-8")
    save_figures(results, output_dir / "figures")
    print(f"Report and figures of {len(results)} result(s) in {output_dir}")


if __name__ == "__main__":
    main()
