import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from sensia_trainer.evaluation.report import compare, significance
from sensia_trainer.evaluation.report_tables import nll_significance, recall_significance
from sensia_trainer.evaluation.results import items_file
from sensia_trainer.evaluation.settings import CHOICE_TASKS, EvaluationConfig
from sensia_trainer.evaluation.suite import load_model, run
from sensia_trainer.evaluation.tasks import TASKS
from sensia_trainer.utils.errors import explain
from tests.conftest import SENTENCES
from tests.modeling_backpack.test_published import write
from tests.modeling_backpack.tiny import random_ids, tiny_published


PAIRS = list(zip(SENTENCES[::2], SENTENCES[1::2], strict=True))


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    for code, lines in (("eng_Latn", SENTENCES[::2]), ("ind_Latn", SENTENCES[1::2])):
        file = folder / "flores200/devtest" / f"{code}.devtest"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    for split, count in (("val", 6), ("test", 12)):
        labels = rng.integers(0, 2, count)
        for name in (f"xcopa/id/{split}.id.jsonl", f"copa_en/{split}.en.labelled.jsonl"):
            rows = [
                {"premise": SENTENCES[i % 10], "choice1": SENTENCES[(i + 3) % 10], "choice2": SENTENCES[(i + 6) % 10],
                 "question": "cause" if i % 2 or "xcopa" in name else "effect", "label": int(labels[i]), "idx": i}
                for i in range(count)
            ]  # fmt: skip
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def config(tmp_path, data_dir, tiny_model, tokenizer):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return EvaluationConfig(
        model=str(tmp_path / "model"), target="ind_Latn", output=str(tmp_path / "results" / "tiny.json"),
        data_dir=str(data_dir),
        tasks=["xcopa"], bootstrap=20, check_languages=False, progress=False, device="cpu",
    )  # fmt: skip


def test_everything_is_measured_and_written(config, tmp_path):
    result = run(config)
    text = open(config.output, encoding="utf-8").read()
    assert result == json.loads(text)
    assert str(tmp_path) not in text and result["config"]["model"] == "model"
    assert result["flores"]["split"] == "devtest" and 0 <= result["flores"]["sense_recall_source_to_target"] <= 1
    assert result["flores"]["target_from_start"]["bytes"] == sum(len(s.encode()) for s in SENTENCES[1::2])
    assert result["flores"]["source_from_start"]["bytes"] == sum(len(s.encode()) for s in SENTENCES[::2])
    assert 0 <= result["flores"]["random_sense_recall_source_to_target"] <= 1
    assert [(t["task"], t["template"]) for t in result["tasks"]] == [("xcopa", "plain"), ("xcopa", "harness")]
    task = result["tasks"][0]
    assert set(task["scores"]) == {"sum", "cond", "pmi", "paper", "searched"}
    assert task["scores"]["paper"]["lambda"] == 0.5 and task["scores"]["cond"]["total"] == 12
    assert task["questions_corrected"] == 6 and task["grid_search"]["items"] == 6
    assert len(result["generation"]["examples"]) == 3 and result["generation"]["sampling"]["seed"] == 0
    assert result["complete"] is True and result["fluency"]["prompts"] == 5
    detail = json.loads(items_file(config.output).read_text(encoding="utf-8"))
    items, hits = detail["xcopa/id/plain"], detail["flores"]["hits"]["sense_recall_source_to_target"]
    assert np.mean(hits) == pytest.approx(result["flores"]["sense_recall_source_to_target"])
    assert items["ids"] == [str(i) for i in range(12)]
    hits = [p == y for p, y in zip(items["predictions"]["cond"], items["labels"], strict=True)]
    assert sum(hits) == task["scores"]["cond"]["correct"]
    assert not any(sentence in json.dumps(items) for sentence in SENTENCES)  # ids and scores, not the texts


def test_the_same_seed_gives_the_same_result(config):
    first = run(config)
    second = run(config)
    assert first["generation"] == second["generation"] and first["tasks"] == second["tasks"]


def test_compare_renders_table_csv_and_figure(config, tmp_path):
    run(config)
    config.name, config.output, config.random_weights = "chance", str(tmp_path / "results" / "chance.json"), True
    config.seed = 5
    run(config)
    paths = [tmp_path / "results" / f"{name}.json" for name in ("tiny", "chance")]
    files = compare(paths, tmp_path / "report" / "EVALUATION.md")
    assert [f.name for f in files] == ["EVALUATION.md", "EVALUATION.csv", "EVALUATION.png", "EVALUATION.svg"]
    text = files[0].read_text(encoding="utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| Benchmark | Language | XGLM"))
    assert header.endswith("| SENSIA (paper) | model | chance |")
    row = next(line for line in text.splitlines() if line.startswith("| XCOPA | Indonesian | 0.580"))
    assert "| 0.516 |" in row and "≈" in row
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| ")}
    two_cells = r"\|.*?( \| \d+\.\d{3}\*? \[\d+\.\d{3}, \d+\.\d{3}\]){2} \|"
    for name in (
        "target bits per byte, from a start token",
        "source bits per byte, from a start token",
        "recall@1, token overlap (no model), source → target",
        "recall@1, sense vectors of random weights, target → source",
        "recall@1 where overlap fails, sense vectors, source → target",
    ):
        assert re.fullmatch(two_cells, rows[name]), rows[name]
    assert "The paper's SENSIA in Indonesian: perplexity 10.58 per token (Table 7" in text
    assert "6 of 12 `question` fields corrected" in text and "## FLORES-200 (eng_Latn – ind_Latn, devtest)" in text
    with files[1].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {"measured", "paper"}
    measured = [row for row in rows if row["model"] == "chance" and row["scoring"] == "cond"]
    assert len(measured) == 2 and all(0 <= float(row["p_value"]) <= 1 for row in measured)
    with pytest.raises(ValueError, match="Nothing was scored by 'best'"):
        compare(paths, tmp_path / "x.md", scoring="best")
    with pytest.raises(ValueError, match="name of its own"):
        compare([paths[0], paths[0]], tmp_path / "x.md")


def test_what_could_not_be_tested_is_marked(config, tmp_path):
    """A missing star would read as no difference."""
    config.generate, config.random_row, config.templates = False, False, ["plain"]
    run(config)
    paths = [config.output]
    for name, change in (("same", {}), ("fewer", {"max_items": 3})):
        other = replace(config, name=name, output=str(tmp_path / f"{name}.json"), **change)
        run(other)
        paths.append(other.output)
    files = compare(paths, tmp_path / "EVALUATION.md")
    assert {file.stem for file in files} == {"EVALUATION"}
    text = files[0].read_text(encoding="utf-8")
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in text.splitlines() if line.startswith("| ")}
    marked = {name: ["°" in cell for cell in row[-3:]] for name, row in rows.items() if len(row) > 3}
    assert marked["XCOPA"] == [False, False, True]
    assert marked["recall@1, sense vectors, source → target"] == [False, False, True]
    assert marked["target bits per byte, from a start token"] == [False, False, True]
    assert marked["target perplexity per token, from a start token"] == [False] * 3
    assert text.count("° not tested: other items than those of model") == 2
    assert "° not tested: other sentences than those of model, " in text
    items_file(paths[1]).unlink()
    text = compare(paths[:2], tmp_path / "EVALUATION.md")[0].read_text(encoding="utf-8")
    assert text.count("° not tested: ") == 3
    files = compare(paths[:1], tmp_path / "rate-0.5")
    assert [file.name for file in files] == ["rate-0.5", "rate-0.5.csv", "rate-0.5.png", "rate-0.5.svg"]
    assert "°" not in files[0].read_text(encoding="utf-8")


def test_recall_is_tested_on_the_same_pairs():
    def result(values, digest="f"):
        return {"items": {"flores": {"fingerprint": digest, "hits": {"r": values}}}}

    test = recall_significance(result([0.0] * 20), result([1.0] * 15 + [0.0] * 5), "r")
    assert test["mean"] == 0.75 and test["p_value"] < 0.05
    assert recall_significance(result([0.0] * 20, "g"), result([1.0] * 20), "r") is None
    assert recall_significance({"items": {}}, result([1.0] * 20), "r") is None


def test_likelihood_is_tested_on_the_same_whole_sentences():
    def result(values, digest="f", truncated=0):
        flores = {"target_from_start": {"truncated": truncated}}
        return {"flores": flores, "items": {"flores": {"fingerprint": digest, "target_nll_from_start": values}}}

    worse, better = [10.0 + i % 3 for i in range(20)], [9.0 + i % 3 for i in range(20)]
    assert nll_significance(result(worse), result(better))["mean"] == -1.0
    assert nll_significance(result(worse), result(better))["p_value"] < 0.05
    assert nll_significance(result(worse, "g"), result(better)) is None
    assert nll_significance(result(worse), result(better, truncated=1)) is None  # not the same text


def test_significance_needs_the_same_items():
    detail = {"fingerprint": "f", "ids": ["a", "b"], "labels": [0, 1], "predictions": {"cond": [0, 1]}}
    first, other = {"items": {"t": detail}}, {"items": {"t": detail | {"predictions": {"cond": [0, 0]}}}}
    assert significance(first, other, "t", "cond") == {"only_a": 0, "only_b": 1, "p_value": 1.0}
    assert significance(first, {"items": {"t": detail | {"fingerprint": "g"}}}, "t", "cond") is None
    assert significance(first, {"items": {}}, "t", "cond") is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tasks": ["xcopy"]}, "`tasks` may hold .*xcopa"),
        ({"tasks": ["xcopa:xx"]}, "unknown language code 'xx'"),
        ({"templates": ["fancy"]}, "`templates` may hold"),
        ({"output": "results"}, "`output` must be a .json"),
        ({"data_dir": "/nowhere"}, "`data_dir` '/nowhere' is not a folder"),
        ({"dtype": "float7"}, "`dtype` must name a torch dtype"),
        ({"bitext_name": "a b"}, "`bitext_name` must be letters"),
        ({"choices_name": "xcopa"}, "no name of a known task"),
        ({"max_items": -1}, "`max_items` must be at least 1"),
        ({"max_length": -3}, "`max_length` must be at least 2"),
        ({"scoring_lambda": 2.0}, "`scoring_lambda` must lie between 0 and 1"),
        ({"flores_purpose": "fun"}, "`flores_purpose` must be one of"),
        ({"target": "swh_Latn"}, "lacks .'swh_Latn'"),
        ({"templates": ["goldfish"]}, r"holds 'xcopa', which none of `templates` \(goldfish\) asks: .*'plain'"),
        ({"tasks": ["xcopa", "xcopa:id"]}, "`tasks` holds 'xcopa:id' twice"),
    ],
)
def test_bad_configuration(config, change, message):
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        run(config)


@pytest.mark.parametrize(
    "change, way",
    [
        ({"target": "swh_Latn"}, "`--flores false`"),
        ({"flores": False, "target": "swh_Latn"}, "leave xcopa out of `--tasks`"),
        ({"flores": False, "tasks": ["xcopa"], "grid_search": True}, "`--grid_search false`"),
    ],
)
def test_what_is_missing_comes_with_a_way_out(config, data_dir, change, way):
    for file in data_dir.glob("xcopa/*/val.*"):
        file.unlink()
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(ValueError) as refused:
        run(config)
    assert way in explain(refused.value)


def test_items_that_choose_have_as_many_choices_as_those_that_are_scored(config, tmp_path):
    for name, options in (("test", ["x", "y"]), ("validation", ["x", "y", "z"])):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": "Q", "choices": options, "label": 0}))
    config.tasks, config.grid_search, config.flores = [], True, False
    config.choices, config.choices_validation = str(tmp_path / "test.jsonl"), str(tmp_path / "validation.jsonl")
    config.choices_label = "label"
    with pytest.raises(ValueError, match="`choices_validation` has items of 3 choices, but `choices` of 2"):
        run(config)


def test_a_text_is_cut_at_the_positions_that_a_model_has(config, data_dir):
    file = data_dir / "flores200/devtest/ind_Latn.devtest"
    file.write_text(file.read_text(encoding="utf-8").replace("\n", " kata" * 300 + "\n", 1), encoding="utf-8")
    config.max_length = 4096
    assert run(config)["flores"]["truncated"] == 1


def test_wrong_language_is_refused(config, data_dir):
    pytest.importorskip("py3langid")
    config.check_languages = True
    file = data_dir / "flores200/devtest/ind_Latn.devtest"
    file.write_text("\n".join(SENTENCES[::2]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="should be in Indonesian"):
        run(config)


def test_an_interrupted_run_goes_on_behind_what_it_measured(config, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sensia_trainer.evaluation.suite.generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert not (tmp_path / "results" / "tiny.json").exists()  # whole or absent
    with monkeypatch.context() as patch:
        for measured in ("evaluate_bitext", "choice_likelihoods"):
            patch.setattr(f"sensia_trainer.evaluation.suite.{measured}", interrupted)
        config.batch_size = 7  # no number depends on it
        resumed = run(config)
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["tiny.items.json", "tiny.json"]
    config.batch_size = 32
    anew = run(config)
    for result in (resumed, anew):
        result.pop("seconds"), result["config"].pop("batch_size")
    assert resumed == anew


def test_other_settings_are_measured_anew(config, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sensia_trainer.evaluation.suite.generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config)
        patch.setattr("sensia_trainer.evaluation.suite.evaluate_bitext", interrupted)
        config.temperature = 0.5
        with pytest.raises(KeyboardInterrupt):
            run(config)


def test_data_of_your_own_stand_under_their_own_names(config, tmp_path):
    rows = [{"question": SENTENCES[i], "choices": SENTENCES[i : i + 2], "label": "AB"[i % 2]} for i in range(8)]
    for name, some in (("quiz", rows), ("dev", rows[:4])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    (tmp_path / "mine.tsv").write_text("en\tid\n" + "".join(f"{s}\t{t}\n" for s, t in PAIRS), encoding="utf-8")
    config.tasks, config.flores, config.generate, config.data_dir = [], False, False, None
    config.bitext, config.bitext_name = [str(tmp_path / "mine.tsv")], "mine"
    config.choices, config.choices_name = str(tmp_path / "quiz.jsonl"), "quiz"
    config.choices_validation = str(tmp_path / "dev.jsonl")
    config.scoring_alpha = 0.3
    result = run(config)
    assert "flores" not in result and result["bitexts"]["mine"]["pairs"] == 5
    assert result["bitexts"]["mine"]["data"] == "mine.tsv" and str(tmp_path) not in json.dumps(result)
    (task,) = result["tasks"]
    assert (task["task"], task["template"], task["items"]) == ("quiz", "own", 8)
    assert set(task["scores"]) == {"sum", "cond", "pmi", "given", "searched"}
    assert (task["scores"]["given"]["lambda"], task["scores"]["given"]["alpha"]) == (1.0, 0.3)
    assert task["grid_search"]["items"] == 4
    config.name, config.seed = "again", 3
    first, config.output = config.output, str(tmp_path / "again.json")
    run(config)
    text = compare([first, config.output], tmp_path / "EVALUATION.md")[0].read_text(encoding="utf-8")
    assert "| quiz | Indonesian |" in text and "## mine (eng_Latn – ind_Latn)" in text
    assert "| recall@1, token overlap (no model), source → target |" in text


def test_tatoeba_and_generation_are_tasks(config, data_dir):
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    for code, lines in (("eng", SENTENCES[::2]), ("ind", SENTENCES[1::2])):
        file = data_dir / f"tatoeba/tatoeba.ind-eng.{code}"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config.tasks, config.random_row, config.generate = ["tatoeba", "continuation"], False, False
    result = run(config)
    assert result["bitexts"]["tatoeba"]["pairs"] == 5 and result["bitexts"]["tatoeba"]["split"] == "test"
    (writing,) = result["writing"]
    assert writing["task"] == "continuation" and 0 <= writing["chrf"] <= 100
    text = compare([config.output], data_dir / "EVALUATION.md")[0].read_text(encoding="utf-8")
    assert "## Tatoeba (eng_Latn – ind_Latn, test)" in text and "| continuation | Indonesian | 5 |" in text


def test_a_model_in_the_working_directory_has_the_name_of_its_folder(config, monkeypatch):
    monkeypatch.chdir(config.model)
    assert run(replace(config, model=".", tasks=[], generate=False, random_row=False))["name"] == "model"


def test_words_of_a_language_without_spaces_are_no_measure(config, tmp_path):
    from sensia_trainer.evaluation.report_tables import pairs_tables

    found = run(replace(config, tasks=[], generate=False, random_row=False))
    per_word = "target perplexity per word"
    assert per_word in "\n".join(pairs_tables([found]))
    found["flores"]["target"] = "zho_Hans"
    assert per_word not in "\n".join(pairs_tables([found]))


def test_nothing_to_evaluate_is_said(config):
    config.tasks, config.flores, config.generate = [], False, False
    with pytest.raises(ValueError, match="There is nothing to evaluate"):
        run(config)


def test_missing_data_are_missed_before_the_model_is_loaded(config):
    config.model, config.tasks = "nowhere", ["xcopa", "belebele"]
    with pytest.raises(ValueError, match="belebele in id"):
        run(config)


def test_a_published_backpack_is_evaluated_as_what_it_is(tmp_path, tokenizer):
    """`AutoModelForCausalLM` would make a GPT-2 with random weights of it."""
    published = tiny_published(vocab_size=len(tokenizer))
    write(tmp_path, published.state_dict(), "safetensors", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = EvaluationConfig(str(tmp_path), "x.json", "id", tokenizer=str(tmp_path / "tokenizer"), device="cpu")
    model, _ = load_model(config)
    input_ids = random_ids(1, 6)
    torch.testing.assert_close(model(input_ids).logits, published(input_ids), rtol=0, atol=1e-5)
    config.random_weights = True
    assert type(load_model(config)[0]) is type(model)


def test_settings_name_the_tasks_that_there_are():
    assert tuple(TASKS) == CHOICE_TASKS


def test_results_in_the_folder_of_the_model_are_no_part_of_it(config, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    config.output = str(tmp_path / "model" / "result.json")
    with monkeypatch.context() as patch:
        patch.setattr("sensia_trainer.evaluation.suite.generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    (tmp_path / "model" / "result.items.json.4321.part").write_text("{")  # of a process killed while it wrote
    monkeypatch.setattr("sensia_trainer.evaluation.suite.evaluate_bitext", interrupted)
    assert run(config)["complete"]


def test_short_sentences_and_languages_without_connectors_leave_parts_out(config, caplog, monkeypatch):
    monkeypatch.setattr("sensia_trainer.evaluation.tasks.CONNECTORS", {"en": {}})
    monkeypatch.setattr("sensia_trainer.evaluation.generation.PROMPT_WORDS", 99)
    result = run(config)
    assert [task["template"] for task in result["tasks"]] == ["plain"] and "fluency" not in result
    assert "no connector for 'id'" in caplog.text and "Fluency is not measured" in caplog.text
