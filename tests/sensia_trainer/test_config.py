"""What a configuration refuses, and that every number of it is checked."""

import math
from dataclasses import fields

import pytest

from sensia_trainer.config import RANGES, SensiaConfig
from sensia_trainer.training.settings import PretrainingArguments
from sensia_trainer.utils.ranges import TRAINING_RANGES


def config(**values):
    return SensiaConfig(output_dir="folder", use_cpu=True, **values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"per_device_train_batch_size": 1}, "InfoNCE takes its negatives"),
        ({"align_fraction": 0.5, "joint_fraction": 0.0, "polish_fraction": 0.5}, "joint_fraction"),
        ({"align_fraction": 0.5}, "sum to"),
        ({"align_fraction": math.nan}, "`align_fraction` is nan"),
        ({"polish_weights": [0.1, math.nan, 0.7]}, "`polish_weights`"),
        ({"tau_sense": 0.0}, "`tau_sense` is 0.0"),
        ({"tau_context_end": math.inf}, "`tau_context_end` is inf"),
        ({"sense_pooling": "mean"}, "`sense_pooling` is 'mean'"),
        ({"polish_freeze": "all"}, "`polish_freeze` is 'all'"),
        ({"context_state": "last"}, "`context_state` is 'last'"),
        ({"count_steps_from": 2}, "`count_steps_from` is 2"),
        ({"label_smoothing_factor": 0.1}, "use `label_smoothing`"),
        ({"w_lm": -1.0}, "`w_lm` is -1.0"),
        ({"max_length": -3}, "`max_length` is -3, but must be a number, 1 or more"),
        ({"max_steps": 0}, "`max_steps` is 0, but must be 1 or more, or -1"),
        ({"max_steps": -5}, "`max_steps` is -5"),
        ({"target_language": "en"}, "`target_language` is 'en', which is `source_language` too"),
        ({"load_best_model_at_end": True}, "`metric_for_best_model` is not; name what evaluation logs"),
        ({"replay_ratio": 3.0}, "`replay_ratio` is 3.0, but must be a number, more than 0 and 1 at most"),
    ],
)
def test_refused(values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", [*RANGES, *TRAINING_RANGES])
def test_no_number_may_be_nan_infinite_or_negative(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value}"):
        config(**{name: value})


@pytest.mark.parametrize("value", [math.nan, -1.0])
@pytest.mark.parametrize("name", TRAINING_RANGES)
def test_pretraining_refuses_the_same(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value}"):
        PretrainingArguments(output_dir="folder", use_cpu=True, **{name: value})


def test_every_number_of_the_method_is_checked():
    checked_elsewhere = {"align_fraction", "joint_fraction", "polish_fraction", "count_steps_from"}  # `test_refused`
    checked_elsewhere |= {"tau_sense", "tau_sense_end", "tau_context", "tau_context_end", "max_steps"}
    numbers = {
        field.name
        for field in fields(SensiaConfig)
        if field.name in SensiaConfig.__annotations__ and field.type in (int, float, int | None, float | None)
    }
    assert numbers <= checked_elsewhere | RANGES.keys() | TRAINING_RANGES.keys()


def test_what_may_be_left_out_may_be_none():
    config(max_length=None, w_lm=None, context_layer=None, target_language=None)
