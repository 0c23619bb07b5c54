"""Importing this makes a process quick, see [`quick`]: that which others are forked from."""

import sensia_trainer.trainer  # noqa: F401  (what is imported later would not be frozen)

from .quick import quicken


quicken()
