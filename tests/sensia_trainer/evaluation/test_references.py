import json

import pytest

from sensia_trainer.evaluation.references import evaluate_writing, load_writing, text_scores
from tests.conftest import SENTENCES


def test_scores_of_known_texts():
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    scores = text_scores(["kedi uyuyor", "", "şöyle böyle"], ["kedi uyuyor", "kedi", "böyle şöyle"])
    assert scores["chrf"][0] == 100 and scores["rougeL"][0] == pytest.approx(100)
    assert scores["chrf"][1] == 0 and scores["rouge1"][1] == 0
    # Letters beyond a to z are letters: both words are found, one of them in order.
    assert scores["rouge1"][2] == pytest.approx(100) and scores["rougeL"][2] == pytest.approx(50)


@pytest.fixture
def data_dir(tmp_path):
    for split in ("dev", "devtest"):
        file = tmp_path / f"flores200/{split}/ind_Latn.{split}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(SENTENCES[1::2]) + "\n", encoding="utf-8")
    (tmp_path / "xlsum").mkdir()
    rows = [{"text": "Buku yang bagus. " * 40, "summary": sentence} for sentence in SENTENCES[1::2]]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "xlsum/indonesian_test.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def test_halves_of_sentences(data_dir):
    writing = load_writing("continuation", "id", data_dir=data_dir)
    assert writing.prompts[0] == ("Kucing tidur di", "") and writing.references[0] == " atas kursi."
    assert writing.language == "id" and writing.source == "FLORES-200 devtest"


@pytest.mark.parametrize("task", ["continuation", "xlsum"])
def test_what_a_model_writes_is_scored(data_dir, tiny_model, tokenizer, task):
    pytest.importorskip("sacrebleu")
    writing = load_writing(task, "ind_Latn", data_dir=data_dir, max_items=3)
    model = tiny_model(num_positions=96)  # articles do not fit and are cut
    result, written = evaluate_writing(model, tokenizer, writing, bootstrap=20)
    assert result["items"] == len(written) == 3 and result["task"] == task
    low, high = result["chrf_interval"]
    assert 0 <= low <= result["chrf"] <= high <= 100
    assert 0 < result["other_references"]["chrf"] < 100
    again, _ = evaluate_writing(model, tokenizer, writing, bootstrap=20, batch_size=1)
    assert again == result


def test_what_is_not_there(data_dir):
    with pytest.raises(ValueError, match=r"xlsum in tr is not in .*: looked for xlsum/turkish_test.jsonl"):
        load_writing("xlsum", "tr", data_dir=data_dir)
