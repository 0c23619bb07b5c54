import pytest
import yaml

from sensia_trainer.evaluation.likelihood import choice_likelihoods
from sensia_trainer.evaluation.scoring import accuracy, scores
from sensia_trainer.evaluation.tasks import CONNECTORS, TASKS, TaskData, make_items
from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER
from tests.conftest import SENTENCES


RECIPES = RECIPES_FOLDER / "lm_eval"
CHOICES = [[SENTENCES[i], SENTENCES[-1 - i]] for i in range(4)]
CAUSAL = [
    {"id": str(i), "premise": SENTENCES[i + 4], "choices": c, "question": ("cause", "effect")[i % 2], "label": i % 2}
    for i, c in enumerate(CHOICES)
]
STORY = [{"id": str(i), "sentences": ["We sleep.", "A cat.", "A book.", "Sea."], "choices": c, "label": 1} for i, c in
         enumerate(CHOICES)]  # fmt: skip
READING = [
    {"id": str(i), "passage": "Cats sleep.", "question": "Who? ", "choices": ["a", "b", "cat", "d"], "label": i}
    for i in range(4)
]


@pytest.mark.parametrize(
    "task, recipe, template, rows",
    [
        ("xcopa", "xcopa_id", "harness", CAUSAL),
        ("xstorycloze", "xstorycloze_id", "harness", STORY),
        ("belebele", "belebele_id", "harness", READING),
        ("belebele", "belebele_plain_en", "plain", READING),
    ],
)
def test_the_harness_agrees(tiny_model, tiny_gpt2, tokenizer, task, recipe, template, rows):
    pytest.importorskip("lm_eval", reason="lm-eval (the extra `eval`) is not installed")
    from sensia_trainer.evaluation.harness import harness_likelihoods

    data = TaskData(task, "id", "test", rows, "here", "0")
    for model in (tiny_gpt2, tiny_model()) if task == "xcopa" else (tiny_gpt2,):
        found = choice_likelihoods(model, tokenizer, make_items(data, template), batch_size=3)
        expected = harness_likelihoods(model, tokenizer, data, RECIPES / f"{recipe}.yaml", batch_size=2)
        assert found.conditional == pytest.approx(expected["conditional"], abs=1e-4)
        assert found.unconditional == pytest.approx(expected["unconditional"], abs=1e-4)
        assert accuracy(scores(found, "sum"), found.labels)["accuracy"] == expected["acc"]
        mutual = accuracy(found.conditional - found.unconditional, found.labels)
        assert mutual["accuracy"] == expected["acc_mutual_info"]


def test_recipes_name_the_hub_data_and_the_connectors():
    recipes = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in RECIPES.glob("*.yaml")}
    assert set(recipes) == {
        "copa_en", "belebele_plain_en", *(f"xcopa_{c}" for c in ("et", "id", "sw", "tr", "zh")),
        *(f"xstorycloze_{c}" for c in ("id", "sw", "zh")),
        *(f"belebele_{c}" for c in ("en", "et", "id", "sw", "tr", "zh")),
    }  # fmt: skip
    for name, recipe in recipes.items():
        task, code = name.split("_")[0], name.rsplit("_", 1)[1]
        assert recipe["task"] == f"sensia_{name}"
        if task == "xstorycloze":  # a script: read from its Parquet copy
            files = recipe["dataset_kwargs"]["data_files"][recipe["test_split"]]
            assert files == f"hf://datasets/{TASKS[task].hub}@refs%2Fconvert%2Fparquet/{code}/eval/*.parquet"
        else:
            assert recipe["dataset_path"] == TASKS[task].hub
        if TASKS[task].kind == "causal":
            assert all(f"'{word}'" in recipe["doc_to_text"] for word in CONNECTORS[code].values())
