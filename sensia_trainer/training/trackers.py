"""Where trackers write: into the run's own folder, beside TensorBoard's files, not into the working directory."""

import os
from pathlib import Path


FOLDER = "runs"  # TensorBoard's in `Trainer`; never published
_given: dict[str, str] = {}


def keep_trackers_in(output_dir, report_to) -> None:
    """
    Tell the trackers that a training reports to where they keep their files, by the variables that they read. What
    the user has set stays.

    Args:
        output_dir (`str` or `Path`): The run's folder.
        report_to (`list[str]`): Their names in `TrainingArguments`. Others than these have a place of their own.
    """
    folder = Path(output_dir).resolve() / FOLDER
    places = {
        "wandb": {"WANDB_DIR": str(folder)},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
        "comet_ml": {"COMET_OFFLINE_DIRECTORY": str(folder / "comet")},
        "swanlab": dict.fromkeys(("SWANLAB_LOG_DIR", "SWANLAB_LOGDIR"), str(folder / "swanlog")),
    }
    for tracker in report_to:
        for name, place in places.get(tracker, {}).items():
            if os.environ.get(name, _given.get(name)) == _given.get(name):  # not set, or by the run before
                folder.mkdir(parents=True, exist_ok=True)
                os.environ[name] = _given[name] = place
