"""Analyse the senses of an adapted model: `python examples/analyze.py analyze --model FOLDER`."""

from sensia_trainer.commands.analyze import main


if __name__ == "__main__":
    main()
