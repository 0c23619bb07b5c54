"""Convert a published Backpack checkpoint: `python examples/convert_published.py REPO FOLDER`."""

from sensia_trainer.commands.convert import main


if __name__ == "__main__":
    main()
