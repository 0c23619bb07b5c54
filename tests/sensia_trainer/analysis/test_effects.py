import pytest
import torch

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.analysis.effects import sense_effect


@pytest.fixture(params=["plain", "gated"])
def model(request, tiny_model, tiny_gpt2):
    model = tiny_model(sense_scale=0.5).double()
    if request.param == "gated":
        model = BackpackForCausalLM.from_backbone(tiny_gpt2, num_senses=4, sense_scale=0.5).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_an_effect_is_what_silencing_the_sense_there_changes(model, tokenizer):
    text, word = "The cat will", "cat"
    effects = sense_effect(model, tokenizer, text, word, top_k=3)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    places = range(len(tokenizer("The")["input_ids"]), len(tokenizer("The cat")["input_ids"]))
    assert len({ids[0, p].item() for p in places} & {t.item() for i, t in enumerate(ids[0]) if i not in places}) == 0
    with torch.no_grad():
        full = model(ids).logits[0, -1]
        for effect in effects:
            with model.intervene_on_senses([ids[0, p].item() for p in places], effect.sense, scale=0.0):
                silent = model(ids).logits[0, -1]
            change = (full - silent) - (full - silent).mean()
            p, q = full.log_softmax(-1), silent.log_softmax(-1)
            assert effect.divergence == pytest.approx((p.exp() * (p - q)).sum().item(), rel=1e-3, abs=1e-7)
            values, words = change.topk(3)
            assert [v for _, v in effect.raised] == pytest.approx(values.tolist(), rel=1e-3, abs=1e-6)
            assert [w for w, _ in effect.raised] == [tokenizer.decode([i]).strip() for i in words]
            assert [v for _, v in effect.lowered] == pytest.approx((-(-change).topk(3).values).tolist(), rel=1e-3)


def test_the_last_occurrence_is_meant_and_a_missing_word_named(model, tokenizer):
    assert len(sense_effect(model, tokenizer, "cat and Cat", "cat")) == 4
    with pytest.raises(ValueError, match=r"`word` 'dog' is not in 'The cat'; its words are \['The', 'cat'\]"):
        sense_effect(model, tokenizer, "The cat", "dog")


def test_effects_of_an_ablated_mixture_are_refused(model, tokenizer):
    model.config.mixture_mode = "uniform"
    with pytest.raises(ValueError, match="`mixture_mode` of the model is 'uniform', an ablation"):
        sense_effect(model, tokenizer, "The cat will", "cat")
