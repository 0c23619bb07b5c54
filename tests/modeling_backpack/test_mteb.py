"""MTEB's bitext mining runs on a folder as it is, and finds what the project's own retrieval finds."""

import pytest
from datasets import Dataset

from sensia_trainer.evaluation.intrinsic import evaluate_bitext
from sensia_trainer.hub.folders import complete_folder
from tests.modeling_backpack.test_sentence import SOURCE, TARGET


mteb = pytest.importorskip("mteb")


def test_bitext_mining(tiny_model, tokenizer, tmp_path):
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
    from sentence_transformers import SentenceTransformer

    class LocalBitext(AbsTaskBitextMining):
        metadata = TaskMetadata(
            name="LocalBitext",
            description="Sentence pairs of a test.",
            dataset={"path": "local/bitext", "revision": "1"},
            type="BitextMining",
            eval_langs=["eng-Latn", "ind-Latn"],
            main_score="accuracy",
        )

        def load_data(self, **kwargs):
            self.dataset = {"test": Dataset.from_dict({"sentence1": SOURCE, "sentence2": TARGET})}
            self.data_loaded = True

    model = tiny_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    complete_folder(tmp_path, {"sense_pooling": "magnitude", "sense_pool_temperature": 0.7})
    vectors = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    result = mteb.evaluate(vectors, LocalBitext(), cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    found = evaluate_bitext(model, tokenizer, SOURCE, TARGET)
    assert scores["accuracy"] == pytest.approx(found["sense_recall_source_to_target"])
