"""Build parallel text: `python examples/build_bitext.py bitext/et --output_dir en-et`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["bitext", *sys.argv[1:]]))
