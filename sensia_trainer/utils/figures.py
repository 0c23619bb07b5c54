"""One way to save a figure: PNG and SVG beside each other, the same bytes for the same numbers."""

from pathlib import Path

from matplotlib import rc_context

from .files import written_atomically


def save_figure(figure, path) -> list[Path]:
    """Saves as PNG and SVG beside each other; any suffix of `path` is replaced. Returns both paths."""
    files = [Path(path).with_suffix(suffix) for suffix in (".png", ".svg")]
    # A fixed hash salt, no date and no version: the same numbers give the same file.
    for file, metadata in zip(files, ({"Software": None}, {"Date": None}), strict=True):
        with rc_context({"svg.hashsalt": "sensia"}), written_atomically(file) as partial:
            figure.savefig(partial, format=file.suffix[1:], dpi=150, bbox_inches="tight", metadata=metadata)
    return files
