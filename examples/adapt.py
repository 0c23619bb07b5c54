"""Adapt a language model to another language on parallel text: `accelerate launch examples/adapt.py quickstart`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["adapt", *sys.argv[1:]]))
