"""From parallel text, wherever it lies, to one dataset with a `translation` column."""

from ..languages import language
from .sources import load_bitext
from .splits import cap_per_group, fingerprint, keep_rows


__all__ = ["cap_per_group", "fingerprint", "keep_rows", "language", "load_bitext"]
