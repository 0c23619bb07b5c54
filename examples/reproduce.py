"""Run experiment matrices: `python examples/reproduce.py table6 --results_dir results --runs_dir runs`."""

from sensia_trainer.commands.reproduce import main


if __name__ == "__main__":
    main()
