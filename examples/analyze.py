"""Analyse the senses of an adapted model: `python examples/analyze.py analyze --model FOLDER`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
