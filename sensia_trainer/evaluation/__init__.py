from .bitext import evaluate_bitext
from .flores import load_flores
from .perplexity import perplexity
from .retrieval import retrieval_metrics


__all__ = ["evaluate_bitext", "load_flores", "perplexity", "retrieval_metrics"]
