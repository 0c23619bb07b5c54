"""Pretrain a Backpack from scratch: `accelerate launch examples/pretrain.py pretrain_micro`."""

from sensia_trainer.commands.pretrain import main


if __name__ == "__main__":
    main()
