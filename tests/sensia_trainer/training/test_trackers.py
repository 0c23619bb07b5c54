"""Trackers write below the run's folder, and all of a run into one run of theirs."""

import os
import sys

import pytest

from sensia_trainer.training import trackers
from tests.tiny import tiny_trainer


WANDB = '''
"""Stands in for Weights & Biases: makes its folder where the real one does."""
import os
from pathlib import Path
from unittest.mock import MagicMock

__version__ = "0.0"
run, runs, logged = None, [], []
config = MagicMock()

def init(**settings):
    global run
    folder = Path(os.environ.get("WANDB_DIR", ".")) / "wandb" / f"run-{len(runs)}"
    folder.mkdir(parents=True)
    run = MagicMock()
    runs.append(folder)

def log(row, **_):
    logged.append(row)
'''
NAMES = ("WANDB_DIR", "MLFLOW_TRACKING_URI", "COMET_OFFLINE_DIRECTORY", "SWANLAB_LOG_DIR", "SWANLAB_LOGDIR")


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    monkeypatch.setattr(trackers, "_given", {})
    for name in NAMES:
        monkeypatch.setenv(name, "to be put back")
        os.environ.pop(name)


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(WANDB)
    for name in ("sdk", "sdk/lib"):
        (package / name).mkdir()
        (package / name / "__init__.py").touch()
    (package / "sdk" / "lib" / "config_util.py").write_text("class ConfigError(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("WANDB_WATCH", "false")
    known = [name for name in sys.modules if name.split(".")[0] == "wandb"]
    import wandb

    yield wandb
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb" and name not in known]:
        del sys.modules[name]


def test_weights_and_biases_write_below_the_run(tmp_path, monkeypatch, wandb):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    trainer = tiny_trainer(tmp_path / "run", max_steps=2, report_to="wandb", eval_rows=8)
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert set(tmp_path.iterdir()) - before == {tmp_path / "run"}
    assert [folder.parent for folder in wandb.runs] == [tmp_path / "run" / "runs" / "wandb"]
    assert any("train/loss" in row for row in wandb.logged)


def test_each_run_has_its_own_place_and_what_a_user_set_stays(tmp_path):
    every = ["wandb", "mlflow", "comet_ml", "swanlab", "tensorboard", "trackio"]
    for run in ("a", "b"):
        trackers.keep_trackers_in(tmp_path / run, every)
        folder = tmp_path / run / "runs"
        assert os.environ["WANDB_DIR"] == str(folder) and folder.is_dir()
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{folder}/mlflow.db"
        assert all(os.environ[name].startswith(str(folder)) for name in NAMES[2:])
    os.environ["WANDB_DIR"] = "mine"
    trackers.keep_trackers_in(tmp_path / "c", every)
    assert os.environ["WANDB_DIR"] == "mine" and os.environ["SWANLAB_LOGDIR"] == f"{tmp_path}/c/runs/swanlog"


def test_nothing_is_made_where_nothing_is_reported(tmp_path):
    trackers.keep_trackers_in(tmp_path / "run", [])
    assert not (tmp_path / "run").exists() and not set(NAMES) & set(os.environ)


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_the_trackers_of_the_extra_leave_the_working_directory_alone(tmp_path, monkeypatch, name):
    pytest.importorskip(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trainer = tiny_trainer(tmp_path / "run", max_steps=1, report_to=name, logging_first_step=True)
    trainer.train()
    assert not list((tmp_path / "here").iterdir())
    kept = {"tensorboard": "events.*", "trackio": "*.db"}[name]
    assert list((tmp_path / "run").rglob(kept))
