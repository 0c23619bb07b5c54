from .bitext import evaluate_bitext
from .figures import training_dynamics
from .flores import load_flores
from .likelihood import choice_likelihoods
from .perplexity import perplexity
from .retrieval import retrieval_metrics
from .scoring import accuracy, grid_search, interpolate, paper_parameters, scores
from .tasks import load_task, make_items


__all__ = [
    "accuracy",
    "choice_likelihoods",
    "evaluate_bitext",
    "grid_search",
    "interpolate",
    "load_flores",
    "load_task",
    "make_items",
    "paper_parameters",
    "perplexity",
    "retrieval_metrics",
    "scores",
    "training_dynamics",
]
