"""The forward pass against the restatement of the published model, in float64."""

import pytest
import torch
from transformers import GPT2Config, GPT2Model, StaticCache

import modeling_backpack.senses_backpack as implementation
from modeling_backpack import BackpackConfig, BackpackForCausalLM, BackpackModel
from tests.modeling_backpack.test_published import write
from tests.modeling_backpack.tiny import BACKBONES, VOCAB_SIZE, random_ids, tiny_backpack, tiny_published
from tests.reference.backpack import backpack


def both(folder, num_senses, inverse_layer, sense_scale):
    """A float64 Backpack and the published model that it was made from."""
    published = tiny_published(num_senses, scale_attn_by_inverse_layer_idx=inverse_layer).double()
    state = published.state_dict()
    write(folder, state, "safetensors", num_senses=num_senses, scale_attn_by_inverse_layer_idx=inverse_layer)
    model = BackpackForCausalLM.from_pretrained(folder, dtype=torch.float64)
    model.config.sense_scale = sense_scale
    return model, state, published


@pytest.mark.parametrize(
    ("num_senses", "inverse_layer", "sense_scale"), [(4, True, 1.0), (4, False, 1.0), (5, True, 1.0), (8, True, 1 / 8)]
)
def test_forward_is_the_published_formula(tmp_path, num_senses, inverse_layer, sense_scale):
    model, state, published = both(tmp_path, num_senses, inverse_layer, sense_scale)
    input_ids = random_ids(2, 11)
    with torch.no_grad():
        outputs = model(input_ids, output_senses=True, output_sense_weights=True)
        for row in range(2):
            expected = backpack(state, input_ids[row], 3, 4, num_senses, inverse_layer, sense_scale)
            assert expected["logits"].std() > 0.1
            for name, value in {
                "hidden": outputs.backbone_last_hidden_state[row],
                "senses": outputs.senses[row],
                "weights": outputs.sense_weights[row],
                "mixture": outputs.last_hidden_state[row],
                "logits": outputs.logits[row],
            }.items():
                torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-9)
        # The module form of the restatement, which the benchmark runs, is the same function.
        if sense_scale == 1.0:
            torch.testing.assert_close(published(input_ids), outputs.logits, rtol=0, atol=1e-9)
            loss = model(input_ids, labels=input_ids).loss.double()  # transformers computes it in float32
            torch.testing.assert_close(published(input_ids, labels=input_ids), loss, rtol=0, atol=1e-5)


def test_inverse_layer_factor_changes_the_logits(tmp_path):
    logits = [both(tmp_path, 4, inverse_layer, 1.0)[0](random_ids(1, 11)).logits for inverse_layer in (True, False)]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_give_the_logits_of_unpadded_ones(backbone, side):
    model = tiny_backpack(backbone, dtype=torch.float64)
    texts = [random_ids(length, seed=length) for length in (3, 9, 6)]
    width = max(len(text) for text in texts)
    input_ids = torch.zeros(3, width, dtype=torch.long)
    attention_mask = torch.zeros(3, width, dtype=torch.long)
    places = []
    for row, text in enumerate(texts):
        place = slice(width - len(text), width) if side == "left" else slice(0, len(text))
        input_ids[row, place], attention_mask[row, place] = text, 1
        places.append(place)
    with torch.no_grad():
        outputs = model(input_ids, attention_mask, output_sense_weights=True)
        for row, (text, place) in enumerate(zip(texts, places)):
            alone = model(text[None], output_sense_weights=True)
            torch.testing.assert_close(outputs.logits[row, place], alone.logits[0], rtol=0, atol=1e-6)
            weights = outputs.sense_weights[row][:, place]
            torch.testing.assert_close(weights[..., place], alone.sense_weights[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert outputs.logits.isfinite().all()


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("mode", ["full", "top_k"])
def test_blocks_of_queries(monkeypatch, block, mode):
    """However many queries are weighed at once, with and without padding, a cache, or part of it filled."""
    model = tiny_backpack(dtype=torch.float64, mixture_mode=mode)
    input_ids, mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[1, :3] = 0

    def results():
        cache = model(input_ids[:, :2], mask[:, :2]).past_key_values
        static = StaticCache(config=model.config, max_cache_len=14)
        for past in (None, cache, static):
            ids = input_ids[:, 2:] if past is cache else input_ids
            outputs = model(ids, mask, past_key_values=past, use_cache=past is not None, output_sense_weights=True)
            kept = mask[:, -ids.shape[1] :].bool()
            yield outputs.logits[kept]
            yield outputs.sense_weights.transpose(1, 2)[kept]

    with torch.no_grad():
        whole = list(results())
        monkeypatch.setattr(implementation, "QUERY_BLOCK", block)
        for ours, expected in zip(results(), whole):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_packed_texts_do_not_see_each_other(backbone):
    model = tiny_backpack(backbone, dtype=torch.float64)
    texts = [random_ids(length, seed=length) for length in (3, 5, 4)]
    packed = torch.cat(texts)[None]
    position_ids = torch.cat([torch.arange(len(text)) for text in texts])[None]
    with torch.no_grad():
        logits = model(packed, position_ids=position_ids, use_cache=False).logits
        alone = torch.cat([model(text[None]).logits for text in texts], dim=1)
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-6)
    assert (logits - model(packed).logits).abs().max() > 1e-2


def test_distinct_tokens_and_repeated_ones_have_their_own_senses():
    model = tiny_backpack()
    input_ids = torch.tensor([[5, 7, 5, 5, 2]])
    senses = model(input_ids, output_senses=True).senses
    assert senses.shape == (1, 5, 4, 32)
    assert torch.equal(senses[0, 0], senses[0, 3]) and not torch.equal(senses[0, 0], senses[0, 1])
    torch.testing.assert_close(senses[0], model.get_senses([5, 7, 5, 5, 2]))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_head_is_tied(backbone):
    model = tiny_backpack(backbone)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_untied_head():
    model = BackpackForCausalLM(BackpackConfig(backbone_config=BACKBONES["gpt2"](), tie_word_embeddings=False))
    assert model.lm_head.weight is not model.get_input_embeddings().weight


def test_initial_weights():
    backbone = GPT2Config(vocab_size=500, n_embd=128, n_layer=8, n_head=4, bos_token_id=0, eos_token_id=0)
    config = BackpackConfig(backbone_config=backbone, num_senses=4)
    model, decoder = BackpackForCausalLM(config), GPT2Model(backbone)
    shrunk = 0.02 / (2 * 8) ** 0.5
    network = model.backpack.sense_network
    for weight, std in [
        (model.backpack.get_input_embeddings().weight, 0.02),
        (network.final_mlp.c_fc.weight, 0.02),
        (network.final_mlp.c_proj.weight, shrunk),
        (network.block.mlp.c_proj.weight, shrunk),
        (model.backpack.sense_weight_net.c_attn.weight, 0.02),
        # As the library initialises a decoder alone.
        (model.backpack.backbone.h[0].attn.c_proj.weight, decoder.h[0].attn.c_proj.weight.std().item()),
        (model.backpack.backbone.h[7].mlp.c_proj.weight, decoder.h[7].mlp.c_proj.weight.std().item()),
    ]:
        assert weight.std().item() == pytest.approx(std, rel=0.05)
        assert abs(weight.mean().item()) < std / 20
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
    # A fresh model knows nothing: its loss is that of the uniform distribution.
    loss = model(torch.randint(0, 500, (2, 64)), labels=torch.randint(0, 500, (2, 64))).loss
    assert loss.item() == pytest.approx(torch.tensor(500.0).log().item(), abs=0.1)


def test_too_long_a_text():
    model = tiny_backpack()
    with pytest.raises(ValueError, match="max_position_embeddings.*=64"):
        model(random_ids(1, 65))
    cache = model(random_ids(1, 60)).past_key_values
    with pytest.raises(ValueError, match="65 positions"):
        model(random_ids(1, 5), past_key_values=cache)


@pytest.mark.parametrize("backbone", ["llama", "gpt_neox"])
def test_a_text_beyond_positions_that_are_not_learned_goes_on(backbone):
    model = tiny_backpack(backbone)
    logits = model(random_ids(1, 100)).logits
    torch.testing.assert_close(logits[:, :90], model(random_ids(1, 100)[:, :90]).logits)
    assert len(model.generate(random_ids(1, 95), max_new_tokens=5, do_sample=False)[0]) == 100


@pytest.mark.parametrize("wrong", [-1, VOCAB_SIZE])
def test_token_ids_out_of_range(wrong):
    with pytest.raises(ValueError, match=rf"`input_ids` must lie in \[0, {VOCAB_SIZE}\)"):
        tiny_backpack()(torch.tensor([[1, wrong]]))


def test_neither_or_both_inputs():
    model = tiny_backpack()
    for inputs in ({}, {"input_ids": random_ids(1, 3), "inputs_embeds": torch.zeros(1, 3, 32)}):
        with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
            model(**inputs)


def test_base_model_is_the_headless_one():
    model = tiny_backpack()
    assert isinstance(model.base_model, BackpackModel)
    input_ids = random_ids(1, 6)
    assert torch.equal(model.backpack(input_ids).last_hidden_state, model(input_ids).last_hidden_state)
