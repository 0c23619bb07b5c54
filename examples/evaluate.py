"""Evaluate causal language models: `python examples/evaluate.py evaluate --model FOLDER --target id --output FILE`."""

from sensia_trainer.commands.evaluate import main


if __name__ == "__main__":
    main()
