"""Adapt a language model to another language on parallel text: `accelerate launch examples/adapt.py quickstart`."""

from sensia_trainer.commands.adapt import main


if __name__ == "__main__":
    main()
