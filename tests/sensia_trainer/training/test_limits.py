import math

import pytest

from sensia_trainer.config import SensiaConfig
from sensia_trainer.training.limits import LIMITS
from sensia_trainer.training.pretraining import PretrainingArguments


@pytest.mark.parametrize("config", [SensiaConfig, PretrainingArguments])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("max_steps", -5),
        ("learning_rate", -1e-3),
        ("learning_rate", math.inf),
        ("weight_decay", -0.1),
        ("adam_beta1", 1.0),
        ("adam_epsilon", 0.0),
        ("max_grad_norm", -1.0),
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("save_steps", 0),
        ("save_total_limit", 0),
        ("seed", -1),
        ("warmup_steps", -3),
    ],
)
def test_numbers_that_make_no_sense(tmp_path, config, name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value}"):
        config(output_dir=str(tmp_path), use_cpu=True, **{name: value})


@pytest.mark.parametrize("name", LIMITS)
def test_nan_is_no_setting(tmp_path, name):
    with pytest.raises(ValueError, match=f"`{name}` is nan"):
        SensiaConfig(output_dir=str(tmp_path), use_cpu=True, max_steps=-1, **{name: math.nan})
