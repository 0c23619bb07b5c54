"""Make a Hub-ready folder of a finished run: `python examples/release.py RUN FOLDER`."""

from sensia_trainer.commands.release import main


if __name__ == "__main__":
    main()
