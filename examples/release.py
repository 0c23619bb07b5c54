"""Make a Hub-ready folder of a finished run: `python examples/release.py RUN FOLDER`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["release", *sys.argv[1:]]))
