"""One way to save a figure: PNG and SVG beside each other, the same bytes for the same numbers."""

from pathlib import Path

from matplotlib import rc_context


def save_figure(figure, path) -> list[Path]:
    """Saves as PNG and SVG beside each other; any suffix of `path` is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in files:
        # A fixed hash salt and no date: the same numbers give the same file.
        with rc_context({"svg.hashsalt": "sensia"}):
            metadata = {"Date": None} if file.suffix == ".svg" else {}
            figure.savefig(file, dpi=150, bbox_inches="tight", metadata=metadata)
    return files
