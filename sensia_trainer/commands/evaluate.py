"""Evaluate causal language models: retrieval and perplexity on parallel text, multiple choice, generation.

    sensia evaluate evaluate --model my/model --target sw --output results/mine.json
    sensia evaluate compare results/a.json results/b.json --output results/EVALUATION.md
    sensia evaluate dynamics outputs/id/metrics.json outputs/sw/metrics.json --output dynamics.png

The second form puts any number of results beside the paper's Table 1 and marks significant differences from the first.
The third draws how several adaptations went on one axis (Figure 2).
"""

from ..evaluation.settings import EvaluationConfig
from ..languages import language
from ..utils.arguments import Parser, recipe_parser
from ..utils.files import read_json
from ..utils.recipes import parse_recipe


PRINTED = ("recall", "beyond_overlap", "perplexity", "bits_per_byte", "entropy")  # of all that the file holds


def parser():
    return recipe_parser((EvaluationConfig,), prog="sensia evaluate", description=__doc__)


def draw_runs(argv):
    """The figure of how several runs went, from what they recorded."""
    drawing = Parser(prog="sensia evaluate dynamics", description="Draw how several adaptations went (Figure 2).")
    drawing.add_argument("metrics", nargs="+", help="metrics.json of runs, or results of `sensia reproduce`")
    drawing.add_argument("--output", required=True, help="figure file; PNG and SVG are written")
    arguments = drawing.parse_args(argv)

    from ..training.by_pair import draw_dynamics_of_runs

    contents = {name: read_json(name) for name in arguments.metrics}
    runs = {name: content.get("metrics", content) for name, content in contents.items()}
    files = draw_dynamics_of_runs(runs, arguments.output)
    if not files:
        raise ValueError(
            f"`metrics` are {arguments.metrics}, of which none has evaluations during training between two "
            "languages: adapt with `eval_strategy: steps`."
        )
    print(*files, sep="\n")


def main(argv):
    if argv[:1] == ["compare"]:
        comparing = Parser(prog="sensia evaluate compare", description="Render results as Markdown, CSV and figure.")
        comparing.add_argument("results", nargs="+", help="result files; significance is against the first")
        comparing.add_argument("--output", required=True, help="Markdown file; CSV and figure go beside it")
        comparing.add_argument("--scoring", default="cond", help="scoring shown in the main table")
        comparing.add_argument("--template", default="plain", help="template shown in the main table")
        arguments = comparing.parse_args(argv[1:])

        from ..evaluation.report import compare

        for file in compare(arguments.results, arguments.output, arguments.scoring, arguments.template):
            print(file)
        return
    if argv[:1] == ["dynamics"]:
        return draw_runs(argv[1:])
    (config,) = parse_recipe(parser(), argv)

    from ..evaluation.languages import LABELS
    from ..evaluation.results import items_file
    from ..evaluation.suite import run
    from ..evaluation.verdict import verdict

    result = run(config)
    for where, found in {"": result.get("flores", {}), **result["bitexts"]}.items():
        for name, value in found.items():
            if isinstance(value, float) and any(part in name for part in PRINTED) and "per_word" not in name:
                print(f"{f'{where} {name}'.strip():45s} {value:.4f}")
        if found:
            names = (language(found.get(side, getattr(config, side))).name for side in ("source", "target"))
            print(*verdict({}, found, tuple(names))[:-1], sep="\n")
    for kind in (*LABELS, "bits_per_byte"):
        for name, value in result.get("matrix", {}).get(kind, {}).items():
            if not name.endswith("_interval"):
                print(f"{f'{kind} {name}':45s} {value:.4f}")
    for task in result["tasks"]:
        for scoring, score in task["scores"].items():
            low, high = score["interval"]
            chance = ", at chance" if score["at_chance"] else ""
            where = f"{task['task']} {task['language']} {task['template']} {scoring}"
            print(f"{where:45s} {score['accuracy']:.4f} [{low:.3f}, {high:.3f}] of {score['total']}{chance}")
    for task in result.get("writing", []):
        print(f"{task['task'] + ' ' + task['language']:45s} chrF {task['chrf']:.1f}, ROUGE-L {task['rougeL']:.1f}")
    for name in ("greedy", "sampled", "human") if "fluency" in result else ():
        rates = ", ".join(f"{key} {value:.3f}" for key, value in result["fluency"][name].items() if value is not None)
        print(f"{'continuations, ' + name:45s} {rates}")
    print(f"results: {config.output}\nitems:   {items_file(config.output)}")
