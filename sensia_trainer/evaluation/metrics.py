"""The evaluation's numbers as `evaluate.Metric` classes: `bitext_retrieval`, `choice_accuracy`, `token_perplexity`.

They need no network: instantiate a class and call `compute`. The folders that

    python -m sensia_trainer.evaluation.metrics outputs/metrics

writes are read by `evaluate.load(folder)` and can be pushed to the Hub as Spaces as they are.
"""

import html
import inspect
import re
import sys
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch

from ..utils.statistics import bootstrap_interval, wilson_interval
from .perplexity import summarize_nll
from .retrieval import DIRECTIONS, retrieval_by_query, retrieval_metrics
from .scoring import accuracy


CITATION = """\
@article{cruz2026multilinguality,
    title = {Multilinguality as Sense Adaptation},
    author = {Cruz, Jan Christian Blaise and Adelani, David Ifeoluwa and Aji, Alham Fikri},
    journal = {arXiv preprint arXiv:2601.10310},
    year = {2026},
}"""


class BitextRetrieval(evaluate.Metric):
    """Does each sentence vector find its translation? Row i of `predictions` translates row i of `references`."""

    def _info(self):
        vector = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description="Recall@1, cosine margin and mean rank of bilingual sentence retrieval, in both directions.",
            citation=CITATION,
            inputs_description="predictions, references: one unit vector a sentence; bootstrap, seed: optional.",
            features=datasets.Features({"predictions": vector, "references": vector}),
        )

    def _compute(self, predictions, references, bootstrap=0, seed=0):
        source, target = torch.tensor(np.array(predictions)), torch.tensor(np.array(references))
        return retrieval_metrics(source, target, bootstrap=bootstrap, seed=seed)


class ChoiceAccuracy(evaluate.Metric):
    """Accuracy of picking the choice with the highest score, with its Wilson interval."""

    def _info(self):
        return evaluate.MetricInfo(
            description="Accuracy of the best-scored choice of each item, with a Wilson 95 % interval and ties.",
            citation=CITATION,
            inputs_description="predictions: the scores of the choices of each item; references: the right index.",
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references):
        return accuracy(np.array(predictions), np.array(references))


class TokenPerplexity(evaluate.Metric):
    """Perplexity per token, word and byte from the summed log-likelihood of each text."""

    def _info(self):
        return evaluate.MetricInfo(
            description="Perplexity per token and per word, nats and bits per byte, from summed log-likelihoods.",
            citation=CITATION,
            inputs_description=(
                "predictions: the summed negative log-likelihood of each text in nats; references: the texts; "
                "tokens: the number of tokens predicted over all texts."
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references, tokens):
        size, words = sum(len(text.encode()) for text in references), sum(len(text.split()) for text in references)
        return summarize_nll(float(np.sum(predictions)), tokens, size, words)


METRICS = {"bitext_retrieval": BitextRetrieval, "choice_accuracy": ChoiceAccuracy, "token_perplexity": TokenPerplexity}

# What the script of a metric holds besides its class, so that it needs nothing of this package.
FUNCTIONS = {
    "bitext_retrieval": (bootstrap_interval, retrieval_by_query, retrieval_metrics),
    "choice_accuracy": (wilson_interval, accuracy),
    "token_perplexity": (summarize_nll,),
}
IMPORTS = {
    "math": "import math",
    "datasets": "import datasets",
    "evaluate": "import evaluate",
    "np": "import numpy as np",
    "torch": "import torch",
    "norm": "from scipy.stats import norm",
    "Tensor": "from torch import Tensor",
}


def metric_script(name: str) -> str:
    """The source of a metric with all it needs in one file, as `evaluate.load` wants it."""
    metric = METRICS[name]
    parts = [inspect.getsource(function).rstrip() for function in (*FUNCTIONS[name], metric)]
    body = "\n\n\n".join(parts) + "\n"
    imports = [line for bound, line in IMPORTS.items() if re.search(rf"\b{bound}\b", body)]
    constants = [f'CITATION = """\\\n{CITATION}"""']
    if "DIRECTIONS" in body:
        constants.append(f"DIRECTIONS = {DIRECTIONS!r}")
    return "\n\n".join([f'"""{metric.__doc__}"""', "\n".join(imports), *constants]) + "\n\n\n" + body


def write_metric_space(name: str, folder) -> Path:
    """Writes the folder of a metric: script, requirements, card and page.

    `evaluate.load(folder)` loads it without a network and without this package, and it can be pushed as it is:

        hf repos create OWNER/NAME --type space --space-sdk static
        hf upload OWNER/NAME FOLDER --repo-type space

    Raises:
        ValueError: If there is no metric of that name.
    """
    if name not in METRICS:
        raise ValueError(f"There is no metric {name!r}; there are {sorted(METRICS)}.")
    info = METRICS[name]()._info()
    folder = Path(folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    script = metric_script(name)
    needed = [
        package for package in ("numpy", "scipy", "torch") if re.search(rf"^(import|from) {package}", script, re.M)
    ]
    head = f"---\ntitle: {name}\nsdk: static\nlicense: apache-2.0\ntags: [evaluate, metric]\n---\n\n# {name}\n\n"
    card = f"{info.description}\n\n{info.inputs_description}\n\n```bibtex\n{info.citation}\n```\n"
    paragraphs = "".join(f"<p>{html.escape(text)}</p>\n" for text in (info.description, info.inputs_description))
    files = {
        f"{name}.py": script,
        "requirements.txt": "\n".join(["datasets", "evaluate", *needed]) + "\n",
        "README.md": head + card,
        "index.html": f'<!doctype html>\n<meta charset="utf-8">\n<title>{name}</title>\n<h1>{name}</h1>\n{paragraphs}',
    }
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    for written in [write_metric_space(metric, sys.argv[1]) for metric in METRICS]:
        print(written)
