"""Two real processes over gloo give what one gives."""

import pytest
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer

from sensia_trainer.evaluation.intrinsic import evaluate_bitext
from sensia_trainer.evaluation.perplexity import perplexity
from tests.conftest import SENTENCES
from tests.distributed import run_on_processes


def evaluate_on_a_rank(folder, sentences):
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    sides = sentences[::2], sentences[1::2]
    result = evaluate_bitext(model, tokenizer, *sides, batch_size=2, accelerator=accelerator)
    return result | {"nll": perplexity(model, tokenizer, sides[1], accelerator=accelerator)["nll"]}


@pytest.mark.distributed
def test_two_processes(tmp_path, tiny_model, tokenizer):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    results = run_on_processes(evaluate_on_a_rank, str(tmp_path / "model"), SENTENCES)
    assert results[0] == results[1]
    expected = evaluate_bitext(model, tokenizer, SENTENCES[::2], SENTENCES[1::2])
    nll = results[0].pop("nll")
    assert results[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert nll == pytest.approx(perplexity(model, tokenizer, SENTENCES[1::2])["nll"], rel=1e-5)
