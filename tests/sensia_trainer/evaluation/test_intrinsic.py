import math

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.evaluation.intrinsic import evaluate_bitext, random_weights_recall
from sensia_trainer.evaluation.overlap import token_idf
from sensia_trainer.evaluation.perplexity import perplexity
from sensia_trainer.evaluation.retrieval import retrieval_metrics
from sensia_trainer.representations import context_sentence_vectors, sense_entropy, sense_sentence_vectors
from tests.conftest import SENTENCES


ENGLISH, INDONESIAN = SENTENCES[::2], SENTENCES[1::2]
DIRECTIONS = ("source_to_target", "target_to_source")
RETRIEVAL = [
    f"{kind}_{metric}_{direction}"
    for kind in ("sense", "context", "overlap")
    for metric in ("recall", "margin", "mean_rank")
    for direction in DIRECTIONS
]
BEYOND = [f"{kind}_beyond_overlap_{direction}" for kind in ("sense", "context") for direction in DIRECTIONS]
COUNTS = ["pairs", "truncated", *(f"beyond_overlap_pairs_{direction}" for direction in DIRECTIONS)]
PERPLEXITY = [
    f"{side}_{name}"
    for side in ("source", "target")
    for name in ("perplexity", "perplexity_per_word", "nll_per_byte", "bits_per_byte")
]


def backpack(tiny_model):
    model = tiny_model()
    for parameter in model.parameters():  # larger than the usual initialisation: vectors and likelihoods differ
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_keys_of_a_backpack(tiny_model, tokenizer):
    metrics = evaluate_bitext(backpack(tiny_model), tokenizer, ENGLISH, INDONESIAN)
    assert set(metrics) == {
        *RETRIEVAL, *BEYOND, *PERPLEXITY, *COUNTS, "sense_entropy_source", "sense_entropy_target"
    }  # fmt: skip
    assert metrics["pairs"] == 5 and metrics["truncated"] == 0
    assert 0 < metrics["sense_entropy_target"] < math.log(4)


@pytest.mark.parametrize("pooling, context_state", [("magnitude", "mixture"), ("contextual", "backbone")])
def test_backpack_equals_one_sentence_at_a_time(tiny_model, tokenizer, pooling, context_state):
    model = backpack(tiny_model)
    metrics = evaluate_bitext(
        model, tokenizer, ENGLISH, INDONESIAN, batch_size=2, pooling=pooling, context_state=context_state
    )
    sides = {}
    for name, sentences in (("source", ENGLISH), ("target", INDONESIAN)):
        sense, context, entropy, tokens = [], [], 0.0, 0
        for sentence in sentences:
            inputs = tokenizer(sentence, return_tensors="pt")
            mask = inputs["attention_mask"]
            with torch.no_grad():
                out = model(**inputs, output_senses=True, output_sense_weights=True)
            vector, probs = sense_sentence_vectors(
                out.senses, mask, pooling=pooling, temperature=0.7, sense_weights=out.sense_weights
            )
            state = out.last_hidden_state if context_state == "mixture" else out.backbone_last_hidden_state
            sense.append(vector)
            context.append(context_sentence_vectors(state, mask))
            entropy += sense_entropy(probs, mask).item() * mask.sum().item()
            tokens += mask.sum().item()
        sides[name] = torch.cat(sense), torch.cat(context)
        assert metrics[f"sense_entropy_{name}"] == pytest.approx(entropy / tokens, rel=1e-5)
    for i, kind in enumerate(("sense", "context")):
        for key, value in retrieval_metrics(sides["source"][i], sides["target"][i]).items():
            assert metrics[f"{kind}_{key}"] == pytest.approx(value, abs=1e-5), key
    for side, sentences in (("source", ENGLISH), ("target", INDONESIAN)):
        expected = perplexity(model, tokenizer, sentences, start=None)
        assert metrics[f"{side}_perplexity"] == pytest.approx(expected["perplexity"], rel=1e-5)
        assert metrics[f"{side}_nll_per_byte"] == pytest.approx(expected["nll_per_byte"], rel=1e-5)


def test_recall_beyond_overlap_is_of_the_pairs_that_overlap_does_not_solve(tiny_model, tokenizer):
    source = ["The cat sleeps", "A good book", "Where is it", "river 1984", "We will meet"]
    target = ["The cat sleeps well", "Kucing tidur", "Di mana", "sungai 1984", "Kita akan"]
    model = backpack(tiny_model)
    metrics = evaluate_bitext(model, tokenizer, source, target, bootstrap=20, by_pair=True)
    hits = metrics.pop("hits")
    for direction in DIRECTIONS:
        assert metrics[f"overlap_recall_{direction}"] == pytest.approx(sum(hits[f"overlap_recall_{direction}"]) / 5)
        unsolved = [i for i, hit in enumerate(hits[f"overlap_recall_{direction}"]) if hit < 1]
        assert 0 < len(unsolved) < 5 and metrics[f"beyond_overlap_pairs_{direction}"] == len(unsolved)
        for kind in ("sense", "context"):
            expected = sum(hits[f"{kind}_recall_{direction}"][i] for i in unsolved) / len(unsolved)
            assert metrics[f"{kind}_beyond_overlap_{direction}"] == pytest.approx(expected)
            low, high = metrics[f"{kind}_beyond_overlap_{direction}_interval"]
            assert low <= expected <= high
    # Document frequencies of other sentences change the overlap and nothing of the model.
    rare = token_idf([tokenizer("The cat")["input_ids"]] * 50, 301)
    weighted = evaluate_bitext(model, tokenizer, source, target, idf=rare, bootstrap=20)
    changed = {key for key in weighted if weighted[key] != metrics[key]}
    assert changed and all("overlap" in key for key in changed)


def test_random_weights_are_those_of_an_untrained_model(tiny_model, tokenizer):
    model = backpack(tiny_model)
    state = torch.random.get_rng_state()
    found = random_weights_recall(model, tokenizer, ENGLISH, INDONESIAN, bootstrap=20, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing else depends on whether it is measured
    torch.manual_seed(3)
    expected = evaluate_bitext(tiny_model(), tokenizer, ENGLISH, INDONESIAN, bootstrap=20, seed=3)
    keys = {f"{kind}_recall_{direction}" for kind in ("sense", "context") for direction in DIRECTIONS}
    keys |= {f"{key}_interval" for key in keys}
    assert found == {f"random_{key}": expected[key] for key in keys}


def test_a_language_model_with_senses_is_read_as_its_family_reads_it(tokenizer):
    """Behind the gate, with the soft cap of the family: the likelihood is that of the model's own logits."""
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, initializer_range=0.3, final_logit_softcapping=1.0,
    )  # fmt: skip
    model = BackpackForCausalLM.from_backbone(Gemma2ForCausalLM(config), num_senses=4).eval()
    torch.nn.init.constant_(model.backpack.residual_gate.weight, 0.5)
    metrics = evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN)
    expected = perplexity(model, tokenizer, INDONESIAN, start=None)
    assert metrics["target_perplexity"] == pytest.approx(expected["perplexity"], rel=1e-5)


def test_any_causal_lm_has_no_sense_keys(tiny_gpt2, tokenizer):
    metrics = evaluate_bitext(tiny_gpt2, tokenizer, ENGLISH, INDONESIAN, batch_size=2)
    assert set(metrics) == {k for k in [*RETRIEVAL, *BEYOND, *PERPLEXITY, *COUNTS] if not k.startswith("sense")}
    expected = perplexity(tiny_gpt2, tokenizer, INDONESIAN, start=None)
    assert metrics["target_perplexity"] == pytest.approx(expected["perplexity"], rel=1e-6)


def test_does_not_depend_on_batch_size_nor_on_the_order_of_pairs(tiny_model, tokenizer):
    model = backpack(tiny_model)
    expected = evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN, batch_size=1)
    for batch_size in (2, 32):
        assert evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN, batch_size=batch_size) == pytest.approx(
            expected, rel=1e-4, abs=1e-6
        )
    assert evaluate_bitext(model, tokenizer, ENGLISH[::-1], INDONESIAN[::-1]) == pytest.approx(
        expected, rel=1e-4, abs=1e-6
    )


def test_half_precision_weights_give_nearly_the_same_numbers(tiny_model, tokenizer):
    model = backpack(tiny_model)
    expected = evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN)
    metrics = evaluate_bitext(model.bfloat16(), tokenizer, ENGLISH, INDONESIAN)
    assert metrics["target_perplexity"] == pytest.approx(expected["target_perplexity"], rel=0.1)
    assert metrics["sense_entropy_target"] == pytest.approx(expected["sense_entropy_target"], rel=0.02)


def test_mode_intervals_and_truncation(tiny_model, tokenizer):
    model = backpack(tiny_model).train()
    metrics = evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN, max_length=8, bootstrap=50)
    assert model.training
    assert metrics["truncated"] == 5
    for key in ("sense_recall_source_to_target", "sense_entropy_target", "target_perplexity", "target_bits_per_byte"):
        low, high = metrics[f"{key}_interval"]
        assert low <= metrics[key] <= high and low < high


class Process:
    """One process of several, as an Accelerator shows it; `gather` returns what all of them put in."""

    def __init__(self, index, num, record):
        self.process_index, self.num_processes, self.record = index, num, record
        self.calls = 0

    def unwrap_model(self, model):
        return model

    def gather(self, tensor):
        self.calls += 1
        shares = self.record.setdefault(self.calls, {})
        shares[self.process_index] = tensor
        return torch.cat([shares.get(i, torch.zeros_like(tensor)) for i in range(self.num_processes)])


def test_sharded_over_processes_gives_the_same_numbers(tiny_model, tokenizer):
    model, record = backpack(tiny_model), {}
    expected = evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN)
    for index in (1, 2):  # five pairs on three processes: shares of 2, 2 and 1
        try:
            evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN, accelerator=Process(index, 3, record))
        except ValueError:
            pass  # the other shares are not there yet
    metrics = evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN, accelerator=Process(0, 3, record))
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_every_sentence_runs_through_the_model_once(tiny_model, tokenizer):
    model, rows = backpack(tiny_model), []
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN, batch_size=2)
    assert sum(rows) == len(ENGLISH) + len(INDONESIAN)


def test_nan_names_the_sentence(tiny_model, tokenizer):
    model = backpack(tiny_model)
    forward, bad = model.forward, tokenizer("Sungai")["input_ids"][0]

    def poisoned(input_ids, **kwargs):
        output = forward(input_ids=input_ids, **kwargs)
        output.last_hidden_state[(input_ids == bad).any(1)] = float("nan")
        return output

    model.forward = poisoned
    with pytest.raises(ValueError, match=r"target sentence 3 is not finite \(1 of 5"):
        evaluate_bitext(model, tokenizer, ENGLISH, INDONESIAN)


def test_bad_input(tiny_gpt2, tokenizer):
    with pytest.raises(ValueError, match="got 5 and 4"):
        evaluate_bitext(tiny_gpt2, tokenizer, ENGLISH, INDONESIAN[:4])
    with pytest.raises(ValueError, match="at least two"):
        evaluate_bitext(tiny_gpt2, tokenizer, ["a"], ["b"])
    with pytest.raises(ValueError, match="Text 1 has no tokens"):
        evaluate_bitext(tiny_gpt2, tokenizer, ["a", ""], ["b", "c"])
    with pytest.raises(ValueError, match="`context_state`"):
        evaluate_bitext(tiny_gpt2, tokenizer, ENGLISH, INDONESIAN, context_state="last")
