"""Put a folder on the Hub: `python examples/publish.py FOLDER owner/name --dry-run`."""

from sensia_trainer.commands.publish import main


if __name__ == "__main__":
    main()
