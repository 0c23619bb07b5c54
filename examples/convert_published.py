"""Convert a published Backpack checkpoint: `python examples/convert_published.py REPO FOLDER`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
