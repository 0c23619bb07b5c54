"""Put a folder on the Hub: `python examples/publish.py FOLDER owner/name --dry-run`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
