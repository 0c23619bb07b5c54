"""Sentence vectors by sentence-transformers are those of the evaluation, from a folder alone."""

import json
import os
import subprocess
import sys

import pytest
import torch

from modeling_backpack.sentence_backpack import BackpackSentenceVectors
from sensia_trainer.evaluation.intrinsic import evaluate_bitext
from sensia_trainer.evaluation.retrieval import retrieval_metrics
from sensia_trainer.hub.folders import complete_folder
from sensia_trainer.representations import (
    context_hidden_state,
    context_sentence_vectors,
    mixture_of,
    sense_sentence_vectors,
)


PAIRS = [
    ("The cat sleeps on the chair.", "Kucing tidur di atas kursi."),
    ("A good book is worth reading twice.", "Buku yang bagus layak dibaca dua kali."),
    ("Where is the nearest station?", "Di mana stasiun terdekat?"),
    ("The river runs down to the sea.", "Sungai mengalir ke laut."),
    ("We will meet again tomorrow morning.", "Kita akan bertemu lagi besok pagi."),
    ("Book.", "Buku."),
]
SOURCE, TARGET = ([pair[side] for pair in PAIRS] for side in (0, 1))


def gated(model):
    """The same sizes, with the senses added to a finished language model by an open gate."""
    from modeling_backpack import BackpackConfig, BackpackForCausalLM

    config = BackpackConfig(**model.config.to_dict() | {"residual_gate": True})
    model = BackpackForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate" in name:
                parameter.fill_(0.5)
    return model


@pytest.fixture(params=["plain", "gated"])
def model(request, tiny_model):
    torch.manual_seed(0)
    model = tiny_model()
    return gated(model) if request.param == "gated" else model


def vectors(model, tokenizer, sentences, kind="sense", **settings):
    module = BackpackSentenceVectors(model.backpack, tokenizer, **settings)
    with torch.no_grad():
        return module(module.preprocess(sentences), vectors=kind)["sentence_embedding"]


@pytest.mark.parametrize("pooling", ["magnitude", "contextual", "mixture"])
def test_sense_vectors_are_those_of_the_method(model, tokenizer, pooling):
    batch = tokenizer(SOURCE, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch, output_senses=True, output_sense_weights=True)
    given = {"sense_weights": output.sense_weights, "mixture": mixture_of(output), "temperature": 0.3}
    expected, _ = sense_sentence_vectors(output.senses, batch["attention_mask"], pooling=pooling, **given)
    found = vectors(model, tokenizer, SOURCE, pooling=pooling, temperature=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("state, layer", [("mixture", None), ("backbone", None), ("combined", None), ("mixture", 1)])
def test_context_vectors_are_those_of_the_method(model, tokenizer, state, layer):
    batch = tokenizer(SOURCE, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
    expected = context_sentence_vectors(context_hidden_state(output, state, layer), batch["attention_mask"])
    found = vectors(model, tokenizer, SOURCE, "context", context_state=state, context_layer=layer)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_retrieval_equals_the_evaluation_s(model, tokenizer):
    source = [f"{SOURCE[0]} <|endoftext|> is text", *SOURCE[1:]]  # no end of the text
    expected = evaluate_bitext(model, tokenizer, source, TARGET)
    for kind in ("sense", "context"):
        found = retrieval_metrics(*(vectors(model, tokenizer, side, kind) for side in (source, TARGET)))
        for name, value in found.items():
            assert value == pytest.approx(expected[f"{kind}_{name}"], abs=1e-5), name


def test_long_empty_and_prompted_texts(tiny_model, tokenizer):
    model = tiny_model(num_positions=8)
    cut = vectors(model, tokenizer, ["The cat sleeps on the chair. " * 50])
    ids = tokenizer("The cat sleeps on the chair.")["input_ids"][:8]
    torch.testing.assert_close(cut, vectors(model, tokenizer, [tokenizer.decode(ids)]), rtol=1e-5, atol=1e-6)
    assert torch.isfinite(vectors(model, tokenizer, ["", "a"])).all()
    module = BackpackSentenceVectors(model.backpack, tokenizer)
    assert (
        module.preprocess(["b"], prompt="a ")["input_ids"].tolist() == module.preprocess(["a b"])["input_ids"].tolist()
    )
    with pytest.raises(ValueError, match="`vectors` is 'word', but must be one of 'sense', 'context'"):
        vectors(model, tokenizer, ["a"], "word")


ALONE = """
import json, sys
sys.modules.update(modeling_backpack=None, sensia_trainer=None)
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import TranslationEvaluator

folders, source, target = json.loads(sys.argv[1])
for folder in folders:
    model = SentenceTransformer(folder, trust_remote_code=True)
    found = {"sense": model.encode(source).tolist(), "context": model.encode(source, vectors="context").tolist()}
    found["mining"] = TranslationEvaluator(source, target, batch_size=2)(model)
    found["similarity"] = model.similarity(model.encode(source), model.encode(target)).tolist()
    model.save(f"{folder}-saved")
    found["again"] = SentenceTransformer(f"{folder}-saved", trust_remote_code=True).encode(source).tolist()
    found["dimension"] = model.get_embedding_dimension()
    try:
        SentenceTransformer(folder)
    except ValueError as error:
        found["refused"] = str(error)
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_sentence_transformers_loads_the_folder_alone(tiny_model, tokenizer, tmp_path):
    torch.manual_seed(0)
    models = {"plain": tiny_model(), "gated": gated(tiny_model())}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        settings = {"sense_pooling": "contextual", "sense_pool_temperature": 0.3, "context_layer": None}
        complete_folder(tmp_path / name, settings)
    arguments = json.dumps([[str(tmp_path / name) for name in models], SOURCE, TARGET])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run([sys.executable, "-c", ALONE, arguments], **run)
    assert done.returncode == 0, done.stderr
    plain, of_gated = map(json.loads, done.stdout.splitlines()[-2:])
    for found, model in zip((plain, of_gated), models.values(), strict=True):
        settings = {"pooling": "contextual", "temperature": 0.3}
        for kind in ("sense", "context"):
            expected = vectors(model, tokenizer, SOURCE, kind, **settings)
            torch.testing.assert_close(torch.tensor(found[kind]), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.tensor(found["again"]), torch.tensor(found["sense"]))
        metrics = evaluate_bitext(model, tokenizer, SOURCE, TARGET, **settings)
        assert found["mining"]["src2trg_accuracy"] == pytest.approx(metrics["sense_recall_source_to_target"], abs=1e-5)
        assert found["mining"]["trg2src_accuracy"] == pytest.approx(metrics["sense_recall_target_to_source"], abs=1e-5)
        assert found["dimension"] == 32 and "trust_remote_code=True" in found["refused"]
