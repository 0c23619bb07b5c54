"""Run experiment matrices: `python examples/reproduce.py table6 --results_dir results --runs_dir runs`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
