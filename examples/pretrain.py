"""Pretrain a Backpack from scratch: `accelerate launch examples/pretrain.py pretrain_micro`."""

import sys

from sensia_trainer.cli import main


if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
