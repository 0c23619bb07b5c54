"""Evaluate causal language models: `python examples/evaluate.py evaluate --model FOLDER --target id --output FILE`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
