"""The same items through lm-evaluation-harness (the `eval` extra), as a cross-check of this package's scorer."""

import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from .tasks import TASKS, TaskData


def harness_likelihoods(model, tokenizer, data: TaskData, recipe, *, batch_size=32) -> dict:
    """Scores the items of `data` with a task file of lm-evaluation-harness.

    Args:
        recipe: A YAML task file such as `recipes/lm_eval/xcopa_id.yaml`; its data set is replaced by `data`.

    Returns:
        `conditional` and `unconditional` (n, C), summed log-likelihoods in nats in the order of `data`; `acc` and
        `acc_mutual_info`; `seconds` and `cpu_seconds` of the log-likelihoods. Equal to `choice_likelihoods` with the
        template of the recipe for items that fit (the harness cuts each choice's context to a length of its own).

    Raises:
        ImportError: Without lm-eval.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    task = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    kind = TASKS[data.task].kind
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    scorer = _timed(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "items.jsonl"
        rows = [json.dumps(_PUBLISHED[kind](row), ensure_ascii=False) for row in data.rows]
        file.write_text("\n".join(rows) + "\n", encoding="utf-8")
        task |= {"dataset_path": "json", "dataset_name": None, "test_split": "test"}
        task["dataset_kwargs"] = {"data_files": {"test": str(file)}, "cache_dir": folder}
        output = simple_evaluate(
            model=scorer,
            tasks=[task],
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
        )
    samples = sorted(output["samples"][task["task"]], key=lambda sample: sample["doc_id"])
    sums = np.array([[response[0][0] for response in sample["resps"]] for sample in samples], dtype=np.float64)
    choices = len(data.rows[0]["choices"])
    metrics = output["results"][task["task"]]
    return {
        "conditional": sums[:, :choices],
        "unconditional": sums[:, choices:],
        "acc": metrics["acc,none"],
        "acc_mutual_info": metrics["acc_mutual_info,none"],
        "seconds": scorer.seconds,
        "cpu_seconds": scorer.cpu_seconds,
    }


def _timed(scorer):
    """Records what the harness spends on log-likelihoods, without its loading of data and its reports."""
    score, scorer.seconds, scorer.cpu_seconds = scorer.loglikelihood, 0.0, 0.0

    def timed(*args, **kwargs):
        start, cpu_start = time.perf_counter(), time.process_time()
        result = score(*args, **kwargs)
        scorer.seconds += time.perf_counter() - start
        scorer.cpu_seconds += time.process_time() - cpu_start
        return result

    scorer.loglikelihood = timed
    return scorer


def _published_causal(row):
    first, second = row["choices"]
    return {
        "premise": row["premise"], "choice1": first, "choice2": second, "question": row["question"],
        "label": row["label"],
    }  # fmt: skip


def _published_story(row):
    sentences = {f"input_sentence_{i}": sentence for i, sentence in enumerate(row["sentences"], 1)}
    first, second = row["choices"]
    return sentences | {"sentence_quiz1": first, "sentence_quiz2": second, "answer_right_ending": row["label"] + 1}


def _published_reading(row):
    answers = {f"mc_answer{i}": answer for i, answer in enumerate(row["choices"], 1)}
    fields = {"flores_passage": row["passage"], "question": row["question"]}
    return fields | answers | {"correct_answer_num": str(row["label"] + 1)}


_PUBLISHED = {"causal": _published_causal, "story": _published_story, "reading": _published_reading}
