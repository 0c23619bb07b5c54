from ..bitext.flores import load_flores
from .dynamics import training_dynamics
from .intrinsic import evaluate_bitext
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
