"""Sense adaptation of Backpack language models: losses, schedule, trainers, data, evaluation, analysis."""

from importlib import import_module
from typing import TYPE_CHECKING


__version__ = "0.2.0.dev0"

# Where the public names are defined. They are imported when they are first asked for, so that `import sensia_trainer`
# loads neither torch nor anything else that is slow.
_HOMES = {
    "DenseTrainer": "baselines",
    "PhaseSchedule": "schedule",
    "SensiaConfig": "config",
    "SensiaTrainer": "trainer",
    "load_bitext": "bitext.sources",
}
__all__ = ["DenseTrainer", "PhaseSchedule", "SensiaConfig", "SensiaTrainer", "__version__", "load_bitext"]

if TYPE_CHECKING:
    from .baselines import DenseTrainer
    from .bitext.sources import load_bitext
    from .config import SensiaConfig
    from .schedule import PhaseSchedule
    from .trainer import SensiaTrainer


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
