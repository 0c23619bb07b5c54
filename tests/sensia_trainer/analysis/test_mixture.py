import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.analysis import summary
from sensia_trainer.analysis.mixture import VARIANTS, ablated, mixture_ablation, sentence_nll
from sensia_trainer.evaluation.perplexity import perplexity
from tests.reference import analysis as reference


TEXTS = ["The cat sleeps on the chair.", "Kucing tidur.", "Where is the nearest station?"]


@pytest.fixture
def sequences(tokenizer):
    return [tokenizer(text)["input_ids"] for text in TEXTS]


def test_nll_matches_the_plain_formula_whatever_the_batch(tiny_model, sequences):
    model = tiny_model()
    nll, tokens = sentence_nll(model, [*sequences, [5]], batch_size=2)
    for ids, total, count in zip(sequences, nll, tokens):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].numpy()
        assert total / count == pytest.approx(reference.cross_entropy(logits, ids[1:]), rel=1e-5)
    assert nll[-1] == 0 and tokens[-1] == 0


def test_full_agrees_with_the_evaluation(tiny_model, tokenizer, sequences):
    model = tiny_model()
    result = mixture_ablation(model, sequences, iterations=10)
    assert math.exp(result["full"]["mean"]) == pytest.approx(
        perplexity(model, tokenizer, TEXTS, start=None)["perplexity"]
    )


def test_uniform_is_the_full_mixture_divided_by_the_number_of_senses(tiny_model, sequences):
    """What the published "uniform" ablation measures is the scale of the logits and nothing else."""
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # logits large enough for their scale to matter
        result = mixture_ablation(model, sequences, iterations=10)
        ids = torch.tensor([sequences[0]])
        full = model(ids).logits
        with ablated(model, "uniform"):
            torch.testing.assert_close(model(ids).logits, full / model.config.num_senses)
    assert result["uniform_norm_matched"]["mean"] == pytest.approx(result["full"]["mean"], rel=1e-5)
    assert result["uniform"]["mean"] != pytest.approx(result["full"]["mean"], rel=1e-3)


def test_all_senses_kept_is_the_full_mixture(tiny_model, sequences):
    model = tiny_model(num_senses=4)
    result = mixture_ablation(model, sequences, top_k=4, iterations=10)
    assert result["top_k"]["mean"] == pytest.approx(result["full"]["mean"], rel=1e-5)
    assert abs(result["top_k"]["difference"]["mean"]) < 1e-5


def test_result_holds_every_variant_with_intervals(tiny_model, sequences):
    result = mixture_ablation(tiny_model(), sequences, iterations=50)
    assert set(VARIANTS) <= set(result)
    assert result["tokens"] == sum(len(ids) - 1 for ids in sequences)
    low, high = result["top_k"]["interval"]
    assert low <= result["top_k"]["mean"] <= high


def test_switches_are_put_back_even_after_an_error(tiny_model):
    model = tiny_model()
    with pytest.raises(RuntimeError), ablated(model, "top_k_norm_matched", top_k=2):
        assert (model.config.mixture_mode, model.config.mixture_top_k) == ("top_k", 2)
        assert model.config.mixture_norm_matched
        raise RuntimeError
    assert (model.config.mixture_mode, model.config.mixture_norm_matched) == ("full", False)


@pytest.fixture
def gated(tokenizer):
    """A language model with senses behind an open gate; and the language model."""
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}
    base = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    model = BackpackForCausalLM.from_backbone(base, num_senses=4).eval()
    with torch.no_grad():
        model.backpack.residual_gate.weight.fill_(0.5)
    return model, base.eval()


def test_senses_behind_a_gate_are_told_with_and_without_the_language_model(gated, sequences):
    model, base = gated
    result, plain = mixture_ablation(model, sequences, iterations=10), sentence_nll(base, sequences)
    assert result["without_senses"]["mean"] == pytest.approx(plain[0].sum() / plain[1].sum(), rel=1e-6)
    assert "difference" in result["senses_alone"]
    ids = torch.tensor([sequences[0]])
    with torch.no_grad():
        full = model(ids, output_senses=True)
        with ablated(model, "senses_alone"):
            torch.testing.assert_close(model(ids).logits, model.get_output_embeddings()(full.mixture))
        with ablated(model, "uniform"):
            state = full.backbone_last_hidden_state + 0.5 * full.mixture / 4
            torch.testing.assert_close(model(ids).logits, model.get_output_embeddings()(state))
        torch.testing.assert_close(model(ids).logits, full.logits, rtol=0, atol=0)


def test_captions_are_those_of_the_models(gated, tiny_model, sequences):
    of_gated, of_plain = (mixture_ablation(m, sequences, iterations=10) for m in (gated[0], tiny_model()))

    def section(*entries):
        shared = {"settings": {"top_k": 1}, "source_language": "en", "target_language": "id"}
        results = [shared | {"shown": "id", "mixture": {"model": entry, "control": None}} for entry in entries]
        return summary._mixture(results)

    assert "logit scale alone" in section(of_plain) and "without senses" not in section(of_plain)
    assert "logit scale alone" not in section(of_gated) and "| without senses | senses alone |" in section(of_gated)
    both = section(of_plain, of_gated)
    assert "logit scale alone" in both and "a quieter sense path alone" in both
    rows = [line.count("|") for line in both.splitlines() if line.startswith("|")]
    assert len(rows) == 6 and len(set(rows)) == 1


def test_bad_arguments_are_refused(tiny_model):
    model = tiny_model(num_senses=4)
    with pytest.raises(ValueError, match="variant"), ablated(model, "half"):
        pass
    with pytest.raises(ValueError, match="4 senses"), ablated(model, "top_k", top_k=5):
        pass
    with pytest.raises(ValueError, match="nothing to predict"):
        mixture_ablation(model, [[1], [2]])


def test_sentences_count_by_their_tokens(tiny_model, sequences):
    model = tiny_model()
    nll, tokens = sentence_nll(model, sequences)
    assert mixture_ablation(model, sequences, iterations=5)["full"]["mean"] == pytest.approx(
        np.sum(nll) / np.sum(tokens)
    )
