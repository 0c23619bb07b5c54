"""One way to save a figure: PNG and SVG beside each other, the same bytes for the same numbers."""

from pathlib import Path

from matplotlib import rc_context

from .files import written_atomically


DOTS, LONGEST = 150, 4000  # an inch, and of a side: a table of very many rows would make a picture of a megabyte
SUFFIXES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")


def save_figure(figure, path) -> list[Path]:
    """Saves as PNG and SVG beside each other; the suffix of `path` is replaced where it is that of a picture, and is
    part of the name elsewhere, as in `rate-0.5`. Returns both paths."""
    path = Path(path)
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    files = [path.with_name(stem + suffix) for suffix in (".png", ".svg")]
    dpi = min(DOTS, LONGEST / max(figure.get_size_inches()))
    # A fixed hash salt, no date and no version: the same numbers give the same file.
    for file, metadata in zip(files, ({"Software": None}, {"Date": None}), strict=True):
        with rc_context({"svg.hashsalt": "sensia"}), written_atomically(file) as partial:
            figure.savefig(partial, format=file.suffix[1:], dpi=dpi, bbox_inches="tight", metadata=metadata)
    return files
