"""The evaluation's numbers as `evaluate.Metric` classes.

They need no network: instantiate a class and call `compute`.
"""

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
