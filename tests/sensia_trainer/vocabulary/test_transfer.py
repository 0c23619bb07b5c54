import numpy as np
import pytest
import torch
from scipy import sparse
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.vocabulary.transfer import add_rows, check_model, mixtures
from sensia_trainer.vocabulary.translation import best_translations
from tests.reference.vocabulary import origins


FIRST = 20
SPELLINGS = [[3], [1, 2], [5, 5, 6]]
TABLE = {(20, 4): 0.6, (20, 7): 0.3, (20, 8): 0.05, (21, 1): 0.2, (21, 2): 0.01}


def translations():
    cells, values = zip(*TABLE.items(), strict=True)
    rows, columns = zip(*cells, strict=True)
    table = sparse.csr_array((values, (rows, columns)), shape=(23, 23))
    return best_translations(table, [20, 21, 22], number=2, threshold=0.1)[:, :FIRST]


def llama(**settings):
    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=24)
    return LlamaForCausalLM(LlamaConfig(**sizes | settings))


def phi():
    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)
    return PhiForCausalLM(PhiConfig(**sizes))


def backpack(**settings):
    backbone = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2)
    return BackpackForCausalLM(BackpackConfig(backbone_config=backbone, num_senses=2, **settings))


def test_rows_are_translations_and_parts_for_the_rest():
    found = mixtures("translation", SPELLINGS, translations(), FIRST).toarray()
    plain = origins(TABLE, [20, 21, 22], dict(zip([20, 21, 22], SPELLINGS, strict=True)), number=2, threshold=0.1)
    for row, expected in zip(found, plain, strict=True):
        assert {i: w for i, w in enumerate(row.tolist()) if w} == pytest.approx(dict(expected))
    assert found.sum(axis=1) == pytest.approx(1.0)


def test_rows_of_parts_are_their_mean():
    found = mixtures("parts", SPELLINGS, None, FIRST).toarray()
    assert found[1, [1, 2]].tolist() == [0.5, 0.5]
    assert found[2, [5, 6]] == pytest.approx([2 / 3, 1 / 3])
    assert mixtures("mean", SPELLINGS, None, FIRST) is None
    with pytest.raises(ValueError, match="`method` must be one of"):
        mixtures("norm", SPELLINGS, None, FIRST)


@pytest.mark.parametrize(
    "build",
    [
        backpack,
        lambda: backpack(tie_sense_embeddings=False),
        llama,
        lambda: llama(tie_word_embeddings=True),
        phi,
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2)),
    ],
    ids=["backpack", "own sense embeddings", "untied and padded", "tied and padded", "head bias", "gpt2"],
)
@pytest.mark.parametrize("method", ["translation", "mean"])
def test_every_matrix_gets_its_own_mixtures(build, method, tmp_path):
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero
            parameter.normal_()
    mixture = mixtures(method, SPELLINGS, translations(), FIRST)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.tensor([[1, 7, 3, 19]])
    logits = model(ids).logits
    check_model(model, FIRST)
    add_rows(model, mixture, FIRST, 3)

    dense = np.full((3, FIRST), 1 / FIRST) if mixture is None else mixture.toarray()
    rows = max(23, len(before[next(name for name in before if name.endswith("lm_head.weight"))]))
    changed = 0
    for name, tensor in model.state_dict().items():
        old = before[name]
        if tensor.shape == old.shape and torch.equal(tensor, old):
            continue
        changed += 1
        assert len(tensor) == rows
        assert torch.equal(tensor[:FIRST], old[:FIRST])
        assert torch.equal(tensor[23:], old[23:])
        assert torch.allclose(tensor[FIRST:23].double(), torch.from_numpy(dense) @ old[:FIRST].double())
    assert changed >= 2
    assert model.config.get_text_config().vocab_size == rows
    # Of the old words, everything is as before: their logits are equal to the bit.
    assert torch.equal(model(ids).logits[..., :FIRST], logits[..., :FIRST])

    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(torch.tensor([[22, 1, 20]])).logits, model(torch.tensor([[22, 1, 20]])).logits)


def test_new_words_have_the_senses_of_their_only_translation():
    model = backpack().eval()
    mixture = mixtures("parts", [[4]], None, FIRST)
    add_rows(model, mixture, FIRST, 1)
    assert torch.equal(model.get_senses([FIRST]), model.get_senses([4]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model, "is_quantized", True), "is quantised"),
        (lambda model: setattr(model.config, "is_encoder_decoder", True), "encoder-decoder"),
        (lambda model: model.to("meta"), "on meta"),
        (lambda model: setattr(model, "lm_head", torch.nn.Linear(8, 30)), "head have 30 rows"),
        (lambda model: setattr(model, "more", torch.nn.Embedding(24, 4)), r"further matrices .*'more'"),
    ],
)
def test_models_whose_rows_cannot_be_added_are_refused(change, message):
    model = llama()
    change(model)
    with pytest.raises(ValueError, match=message):
        check_model(model, FIRST)


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(ValueError, match="25 rows, but the model has 24"):
        check_model(llama(), 25)


def test_a_model_that_reads_ahead_is_refused():
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertLMHeadModel(BertConfig(vocab_size=24, **sizes))
    with pytest.raises(ValueError, match="BertLMHeadModel is bidirectional"):
        check_model(model, FIRST)
    assert model.training
