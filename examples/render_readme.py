"""Write the table of results in README.md from the files in results/: `python examples/render_readme.py`."""

import json
from pathlib import Path
from statistics import mean

from sensia_trainer.utils.markdown import table


ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = {"id": "Indonesian", "et": "Estonian", "sw": "Swahili", "tr": "Turkish"}
METHODS = {"sensia": "SENSIA", "mcl": "dense alignment", "fine-tuning": "fine-tuning", "lm-only": "LM loss alone"}
YARDSTICKS = {"overlap": "token overlap, no model", "random_context": "random weights"}
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def recall(results):
    """Recall@1 of the context vectors, mean of both directions and of all runs."""
    sides = ("source_to_target", "target_to_source")
    return mean(result["evaluation"]["flores"][f"context_recall_{side}"] for result in results for side in sides)


def yardstick(code, kind):
    """Recall@1 of what needs no training, mean of both directions: `overlap`, counting the tokens that two sentences
    share, and `random_context`, the base model with random weights."""
    flores = json.loads((ROOT / "results" / "yardsticks" / f"{code}.json").read_text(encoding="utf-8"))["flores"]
    return mean(flores[f"{kind}_recall_{side}"] for side in ("source_to_target", "target_to_source"))


def render() -> str:
    rows = []
    for code, name in LANGUAGES.items():
        runs = {
            method: [json.loads(file.read_text(encoding="utf-8")) for file in (ROOT / "results" / code).glob(pattern)]
            for method in METHODS
            for pattern in (f"{method}*.json",)
        }
        training = [result["metrics"] for result in runs["sensia"]]
        pairs, minutes = training[0]["data"]["pairs"], mean(metrics["seconds"] for metrics in training) / 60
        untrained = (yardstick(code, kind) for kind in YARDSTICKS)
        values = (*(recall(runs[method]) for method in METHODS), *untrained)
        rows.append([name, f"{pairs:,}", f"{minutes:.0f}", *(f"{value:.2f}" for value in values)])
    return table(["language", "pairs", "minutes on two CPU cores", *METHODS.values(), *YARDSTICKS.values()], rows)


def rendered(text: str) -> str:
    """The README with the table between its two marks renewed."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{render()}\n{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(rendered(readme.read_text(encoding="utf-8")), encoding="utf-8")
    print(render())
