import json
import sys

import pytest

from sensia_trainer.bitext import langid
from sensia_trainer.bitext.langid import check_language
from sensia_trainer.evaluation.tasks import TASKS, correct_questions, load_task, make_items


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def copa(idx, question, label=0, premise="The man slept.", choices=("He was tired.", "He sang.")):
    return {"premise": premise, "choice1": choices[0], "choice2": choices[1], "question": question, "label": label,
            "idx": idx, "changed": False}  # fmt: skip


STORY = {"story_id": "s1", **{f"input_sentence_{i}": f"S{i}." for i in range(1, 5)}, "sentence_quiz1": "End one.",
         "sentence_quiz2": "End two.", "answer_right_ending": 2}  # fmt: skip
BELEBELE = {"link": "u", "question_number": 3, "flores_passage": "A passage. ", "question": "What? ", "dialect": "x",
            **{f"mc_answer{i}": f"answer {i}" for i in range(1, 5)}, "correct_answer_num": "4"}  # fmt: skip
MMLU = {"metadata": {"sample_id": "m1"}, "label": "C",
        "prompts": [{"question": "Why?", **{f"option_{x}": f"option {x}" for x in "abcd"}}]}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "xcopa/id/test.id.jsonl", [copa(0, "cause"), copa(1, "effect", 1), copa(2, "cause")])
    write(tmp_path / "copa_en/test.en.labelled.jsonl", [copa(2, "effect"), copa(1, "effect", 1), copa(0, "cause")])
    write(tmp_path / "xstorycloze/id.eval.jsonl", [STORY])
    write(tmp_path / "xstorycloze_like/id_mt.eval.jsonl", [STORY])
    write(tmp_path / "belebele/ind_Latn.jsonl", [BELEBELE])
    write(tmp_path / "global_mmlu_lite/global_mmlu_lite_id_test.jsonl", [MMLU])
    return tmp_path


def test_questions_are_corrected_from_english_and_reported(folder):
    data = load_task("xcopa", "ind_Latn", "test", data_dir=folder)
    assert data.corrected == ["2"] and [row["question"] for row in data.rows] == ["cause", "effect", "effect"]
    published = load_task("xcopa", "id", "test", data_dir=folder, questions="published")
    assert published.corrected == [] and published.rows[2]["question"] == "cause"
    assert published.fingerprint != data.fingerprint
    # The plain template does not ask the question, the connector does.
    assert make_items(data, "plain") == make_items(published, "plain")
    assert make_items(data, "harness")[2].context == "The man slept maka"
    assert make_items(published, "harness")[2].context == "The man slept karena"


def test_questions_are_not_corrected_by_ids_that_do_not_correspond():
    with pytest.raises(ValueError, match="Item 1 of XCOPA.*questions='published'"):
        correct_questions(
            [{"id": "1", "question": "cause", "label": 0}], [{"id": "1", "question": "cause", "label": 1}]
        )
    rows = [{"id": "1", "question": "cause", "label": 0}]
    assert correct_questions(rows, [{"id": "1", "question": "effect", "label": -1}]) == [
        "1"
    ]  # hidden label of the Hub


def test_templates_of_causal_items(folder):
    data = load_task("xcopa", "id", "test", data_dir=folder)
    plain, harness = make_items(data, "plain")[0], make_items(data, "harness")[0]
    assert (plain.context, plain.continuations) == ("The man slept.\n", ("He was tired.", "He sang."))
    assert (harness.context, harness.continuations) == ("The man slept karena", (" he was tired.", " he sang."))


def test_templates_of_stories(folder):
    item = make_items(load_task("xstorycloze", "id", "test", data_dir=folder), "plain")[0]
    assert item == ("s1", "S1. S2. S3. S4.\n", ("End one.", "End two."), 1)
    harness = make_items(load_task("xstorycloze", "id", "test", data_dir=folder), "harness")[0]
    assert (harness.context, harness.continuations[1]) == ("S1. S2. S3. S4.", " End two.")


def test_templates_of_reading_items(folder):
    data = load_task("belebele", "id", "test", data_dir=folder)
    plain, harness, goldfish = (make_items(data, name)[0] for name in ("plain", "harness", "goldfish"))
    assert (
        plain.context == "A passage. \n\nQ: What? \nA:" and plain.continuations[3] == " answer 4" and plain.label == 3
    )
    assert goldfish.context + goldfish.continuations[0] == "A passage. What? answer 1"
    assert harness.context.endswith("\nA: answer 1\nB: answer 2\nC: answer 3\nD: answer 4\nAnswer:")
    assert harness.continuations == (" A", " B", " C", " D")
    mmlu = make_items(load_task("global_mmlu_lite", "id", "test", data_dir=folder), "plain")[0]
    assert mmlu == ("m1", "Q: Why?\nA:", (" option a", " option b", " option c", " option d"), 2)


def test_published_tsv_of_xstorycloze(tmp_path):
    header = ["InputStoryid", *(f"InputSentence{i}" for i in range(1, 5)), "RandomFifthSentenceQuiz1",
              "RandomFifthSentenceQuiz2", "AnswerRightEnding"]  # fmt: skip
    file = tmp_path / "xstorycloze/spring2016.val.sw.tsv.split_20_80_eval.tsv"
    file.parent.mkdir()
    file.write_text("\t".join(header) + '\ns9\tHe said "a.\tb\tc\td\te\tf\t1\n', encoding="utf-8")
    row = load_task("xstorycloze", "sw", "test", data_dir=tmp_path).rows[0]
    assert row == {"id": "s9", "sentences": ['He said "a.', "b", "c", "d"], "choices": ["e", "f"], "label": 0}


def test_stand_ins_say_what_they_are(folder):
    data = load_task("xstorycloze_like", "id", "test", data_dir=folder)
    assert data.source == "xstorycloze_like/id_mt.eval.jsonl" and "not the official" in data.note
    with pytest.raises(ValueError, match="xstorycloze in id"):
        (folder / "xstorycloze/id.eval.jsonl").unlink()
        load_task("xstorycloze", "id", "test", data_dir=folder)  # the stand-in does not pass for the official set
    with pytest.raises(ValueError, match="local files only"):
        load_task("xstorycloze_like", "id", "test")
    assert "not Belebele" in load_task("global_mmlu_lite", "id", "test", data_dir=folder).note


def test_what_is_missing_is_named_with_what_exists(folder):
    with pytest.raises(ValueError, match="xcopa in sw.*xcopa/sw/test.sw.jsonl.*present: xcopa/id/test.id.jsonl"):
        load_task("xcopa", "sw", "test", data_dir=folder)
    with pytest.raises(ValueError, match="belebele has no 'validation' split; it has .'test'"):
        load_task("belebele", "id", "validation", data_dir=folder)
    with pytest.raises(ValueError, match="Unknown task 'copaa'.*xcopa"):
        load_task("copaa", "id", "test", data_dir=folder)
    with pytest.raises(ValueError, match="`questions`"):
        load_task("xcopa", "id", "test", data_dir=folder, questions="fixed")
    with pytest.raises(ValueError, match="no template 'goldfish'"):
        make_items(load_task("xcopa", "id", "test", data_dir=folder), "goldfish")


def test_items_that_cannot_be_scored_are_named(tmp_path):
    write(tmp_path / "copa_en/test.en.labelled.jsonl", [copa(4, "cause", choices=("He sang.", " "))])
    with pytest.raises(ValueError, match="Item 4 of copa en test: choice 1 is empty"):
        load_task("copa", "en", "test", data_dir=tmp_path)
    write(tmp_path / "copa_en/test.en.labelled.jsonl", [copa(5, "cause", label=-1)])
    with pytest.raises(ValueError, match="Item 5.*hidden, as on the Hub: give the labelled files by `data_dir`"):
        load_task("copa", "en", "test", data_dir=tmp_path)


def test_files_of_another_task_are_named_with_the_item(tmp_path):
    (tmp_path / "copa_en").mkdir()
    file = tmp_path / "copa_en/test.en.labelled.jsonl"
    file.write_text("")
    with pytest.raises(ValueError, match=r"copa en test \(.*\) holds no items"):
        load_task("copa", "en", "test", data_dir=tmp_path)
    row = copa(4, "cause")
    del row["question"]
    write(file, [copa(3, "cause"), row])
    with pytest.raises(
        ValueError, match=r"Item 2 of copa en test .*KeyError: 'question'.*it has \['changed', 'choice1'"
    ):
        load_task("copa", "en", "test", data_dir=tmp_path)


def test_files_in_the_wrong_language_are_refused():
    pytest.importorskip("py3langid")
    turkish = ["Kadın kapıyı açtı ve dışarı çıktı.", "Çocuklar bahçede oynuyorlar.", "Bugün hava çok güzel."]
    assert check_language(turkish, "tur_Latn", "this") == 1.0
    with pytest.raises(ValueError, match="FLORES should be in Indonesian but 3 of 3 texts look like Turkish"):
        check_language(turkish, "id", "FLORES")


def test_a_language_that_cannot_be_told_is_said_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    for cached in (langid._model, langid.identifier, langid._say_unchecked):
        cached.cache_clear()
    for _ in range(2):
        assert check_language(["Bugün hava çok güzel."], "id", "FLORES") is None
    assert caplog.text.count("The language of FLORES is not checked: py3langid is not installed") == 1


@pytest.mark.data
@pytest.mark.parametrize(
    "code, split, corrected",
    [("tr", "validation", 52), ("tr", "test", 51), ("sw", "test", 37), ("id", "test", 4), ("et", "test", 0)],
)
def test_corrections_of_the_real_files(sensia_data, code, split, corrected):
    data = load_task("xcopa", code, split, data_dir=sensia_data / "eval")
    assert len(data.corrected) == corrected and len(data.rows) == {"validation": 100, "test": 500}[split]


@pytest.mark.data
def test_every_local_task_loads(sensia_data):
    sizes = {}
    for task, code in [
        ("copa", "en"),
        ("xstorycloze_like", "id"),
        ("xstorycloze", "en"),
        ("belebele", "en"),
        ("global_mmlu_lite", "id"),
    ]:
        for split in TASKS[task].splits:
            data = load_task(task, code, split, data_dir=sensia_data / "eval")
            assert len({row["id"] for row in data.rows}) == len(data.rows)
            sizes[task, split] = len(data.rows)
    assert sizes["xstorycloze_like", "test"] == 1511 and sizes["belebele", "test"] == 900


@pytest.mark.parametrize("split, size", [("validation", 1), ("test", 2)])
def test_hub(monkeypatch, split, size):
    stories = {"train": [STORY], "eval": [STORY, STORY | {"story_id": "s2"}]}
    monkeypatch.setattr("datasets.load_dataset", lambda path, config, split: stories[split])
    data = load_task("xstorycloze", "sw", split)
    assert data.source == "juletxara/xstory_cloze" and [row["id"] for row in data.rows] == ["s1", "s2"][:size]


def test_questions_of_the_hub_are_corrected_without_the_hidden_labels(monkeypatch):
    rows = {"cambridgeltl/xcopa": [copa(0, "effect")], "aps/super_glue": [copa(0, "cause", label=-1)]}
    monkeypatch.setattr("datasets.load_dataset", lambda path, config, split: rows[path])
    data = load_task("xcopa", "id", "test")
    assert data.corrected == ["0"] and data.rows[0]["question"] == "cause" and data.rows[0]["label"] == 0
