"""`python -m sensia_trainer` is the command `sensia`."""

import sys

from .cli import main


if __name__ == "__main__":
    sys.exit(main())
