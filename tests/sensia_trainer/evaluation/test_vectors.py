"""Models are measured by the vectors that they were trained for."""

import json
import logging
from pathlib import Path

import pytest

from sensia_trainer.evaluation.settings import EvaluationConfig
from sensia_trainer.evaluation.vectors import DEFAULTS, vectors_of, with_vectors
from sensia_trainer.utils.recipes import find_model


TRAINED = {"sense_pooling": "mixture", "sense_pool_temperature": 0.5, "context_state": "combined", "context_layer": 1}
OWN = {"pooling": "mixture", "temperature": 0.5, "context_state": "combined", "context_layer": 1}


def config(folder, **given):
    return EvaluationConfig(model=str(folder), output="a.json", target="id", **given)


@pytest.mark.parametrize("file", ["metrics.json", "sentence_backpack.json"])
def test_the_vectors_of_the_folder_are_taken(tmp_path, file):
    content = {"config": TRAINED} if file == "metrics.json" else OWN
    (tmp_path / file).write_text(json.dumps(content))
    assert vectors_of(str(tmp_path)) == OWN
    found = with_vectors(config(tmp_path))
    assert {name: getattr(found, name) for name in OWN} == OWN


def test_a_checkpoint_has_those_of_its_run(tmp_path):
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "settings.json").write_text(json.dumps({"training": TRAINED}))
    assert vectors_of(str(tmp_path / "checkpoint-20")) == OWN
    assert vectors_of(str(tmp_path)) == {}


@pytest.mark.parametrize("name, content", [("metrics.json", {"config": TRAINED}), ("sentence_backpack.json", OWN)])
def test_those_of_a_repository_are_asked_for(tmp_path, monkeypatch, name, content):
    (tmp_path / name).write_text(json.dumps(content))
    found = {name: str(tmp_path / name)}
    monkeypatch.setattr("sensia_trainer.utils.models.cached_file", lambda model, file, **_: found.get(file))
    assert vectors_of("owner/name") == OWN


def test_others_are_told(tmp_path, caplog):
    (tmp_path / "metrics.json").write_text(json.dumps({"config": TRAINED}))
    with caplog.at_level(logging.WARNING):
        found = with_vectors(config(tmp_path, pooling="magnitude", temperature=0.5))
    assert (found.pooling, found.temperature, found.context_state) == ("magnitude", 0.5, "combined")
    assert [record.getMessage().partition(" is")[0] for record in caplog.records] == ["`pooling`"]


@pytest.mark.parametrize("content", [None, {}, {"config": None}, {"config": {"learning_rate": 1}}])
def test_a_model_that_says_nothing_has_those_of_the_paper(tmp_path, content, caplog):
    if content is not None:
        (tmp_path / "metrics.json").write_text(json.dumps(content))
    found = with_vectors(config(tmp_path, context_layer=2))
    assert {name: getattr(found, name) for name in DEFAULTS} == DEFAULTS | {"context_layer": 2}
    assert not caplog.records


def test_a_model_that_is_nowhere_is_told_by_its_loading():
    assert vectors_of("nowhere/at-all") == vectors_of("no such//name") == {}


def test_those_of_a_packaged_model_are_in_its_folder(monkeypatch):
    asked = []
    monkeypatch.setattr("sensia_trainer.utils.models.cached_file", lambda model, file, **_: asked.append(Path(model)))
    vectors_of("backpack-micro-en")
    assert set(asked) == {Path(find_model("backpack-micro-en"))}  # no repository of that name
