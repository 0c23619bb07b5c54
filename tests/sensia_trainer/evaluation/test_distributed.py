"""Two real processes over gloo give what one gives."""

import json
import os
import socket
import subprocess
import sys

import pytest

from sensia_trainer.evaluation.intrinsic import evaluate_bitext
from sensia_trainer.evaluation.perplexity import perplexity
from tests.conftest import SENTENCES


SCRIPT = """
import json, sys
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer
import modeling_backpack
from sensia_trainer.evaluation.intrinsic import evaluate_bitext
from sensia_trainer.evaluation.perplexity import perplexity

folder, sentences, output = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
result = evaluate_bitext(model, tokenizer, sentences[::2], sentences[1::2], batch_size=2, accelerator=accelerator)
result["nll"] = perplexity(model, tokenizer, sentences[1::2], accelerator=accelerator)["nll"]
json.dump(result, open(f"{output}.{accelerator.process_index}", "w"))
"""


@pytest.mark.distributed
def test_two_processes(tmp_path, tiny_model, tokenizer):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "model"), json.dumps(SENTENCES), str(tmp_path / "out")]
    processes = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(2)
    ]
    assert [process.wait(timeout=280) for process in processes] == [0, 0]
    results = [json.loads((tmp_path / f"out.{i}").read_text()) for i in range(2)]
    assert results[0] == results[1]
    expected = evaluate_bitext(model, tokenizer, SENTENCES[::2], SENTENCES[1::2])
    nll = results[0].pop("nll")
    assert results[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert nll == pytest.approx(perplexity(model, tokenizer, SENTENCES[1::2])["nll"], rel=1e-5)
