"""Give a language model senses: `accelerate launch examples/induce.py --model MODEL --text_files english.txt`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["induce", *sys.argv[1:]]))
