"""The evaluation's numbers as `evaluate.Metric` classes: `bitext_retrieval`, `choice_accuracy`, `token_perplexity`.

They need no network: instantiate a class and call `compute`. `write_metric_space` writes a folder that
`evaluate.load(folder)` reads and that can be pushed to the Hub as a Space as it is.
"""

from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch

from .perplexity import summarize_nll
from .retrieval import retrieval_metrics
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


def write_metric_space(name: str, folder) -> Path:
    """Writes the folder of a metric (script, requirements, card); `evaluate.load(folder)` loads it.

    Raises:
        ValueError: If there is no metric of that name.
    """
    if name not in METRICS:
        raise ValueError(f"There is no metric {name!r}; there are {sorted(METRICS)}.")
    metric = METRICS[name]
    info = metric()._info()
    folder = Path(folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    script = f"from sensia_trainer.evaluation.metrics import {metric.__name__} as _Metric\n\n\n"
    script += f'class {metric.__name__}(_Metric):\n    """{metric.__doc__}"""\n'
    (folder / f"{name}.py").write_text(script, encoding="utf-8")
    (folder / "requirements.txt").write_text("sensia\n", encoding="utf-8")
    head = f"---\ntitle: {name}\nsdk: static\nlicense: apache-2.0\ntags: [evaluate, metric]\n---\n\n# {name}\n\n"
    card = f"{info.description}\n\n{info.inputs_description}\n\n```bibtex\n{info.citation}\n```\n"
    (folder / "README.md").write_text(head + card, encoding="utf-8")
    return folder
