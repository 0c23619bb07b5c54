"""Senses behind a gate: closed, the model is the language model it was made from; open, everything works as usual."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, GenerationConfig, T5Config

from modeling_backpack import BackpackConfig, BackpackForCausalLM, BackpackModel
from tests.modeling_backpack.tiny import GPT2, ROTARY, SIZES, random_ids, spread, tiny_backpack


GROUPED = ROTARY | dict(num_key_value_heads=2, max_position_embeddings=96)
WINDOW = GROUPED | dict(sliding_window=4)
# Every family that the README names, and one for each thing that happens to logits.
FAMILIES = {
    "gpt2": GPT2,
    "llama": GROUPED | dict(tie_word_embeddings=True),
    "llama-untied": GROUPED | dict(model_type="llama"),
    "qwen3": GROUPED | dict(head_dim=8),
    "gpt_neox": ROTARY,
    "opt": ROTARY | dict(ffn_dim=48, word_embed_proj_dim=32),
    "opt-projected": ROTARY | dict(model_type="opt", ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    "gemma2": WINDOW | dict(head_dim=8, final_logit_softcapping=0.5),
    "gemma3_text": WINDOW
    | dict(head_dim=8, final_logit_softcapping=0.5, layer_types=["sliding_attention", "full_attention"]),
    "mistral": WINDOW,
    "phi": ROTARY,
    "olmo2": GROUPED,
    "bloom": dict(hidden_size=32, n_layer=2, n_head=4),
    "cohere": GROUPED | dict(logit_scale=0.25),
    "granite": GROUPED | dict(logits_scaling=3.0),
}


def language_model(family):
    settings = SIZES | FAMILIES[family]
    config = AutoConfig.for_model(settings.pop("model_type", family), **settings)
    torch.manual_seed(0)
    return spread(AutoModelForCausalLM.from_config(config)).eval()


def gated(family="llama", gate=0.0, **config):
    model = spread_senses(BackpackForCausalLM.from_backbone(language_model(family), **({"num_senses": 4} | config)))
    with torch.no_grad():
        model.backpack.residual_gate.weight.fill_(gate)
    return model.eval()


def spread_senses(model):
    for module in (model.backpack.sense_network, model.backpack.sense_weight_net):
        spread(module, seed=1)
    return model


def padded():
    input_ids, attention_mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    input_ids[1, :4], attention_mask[1, :4] = 0, 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@torch.no_grad()
def test_a_closed_gate_is_the_language_model_to_the_bit(family):
    base, model, batch = language_model(family), gated(family), padded()
    input_ids, kept = batch["input_ids"], batch["attention_mask"].bool()
    outputs = model(input_ids)
    assert torch.equal(outputs.logits, base(input_ids).logits)
    assert torch.equal(outputs.last_hidden_state, base.base_model(input_ids).last_hidden_state)
    assert outputs.mixture.std() > 1e-2, "the senses are there, and shut out"
    # With padding on the left, where positions are what `generate` makes them: BLOOM and OPT make them themselves.
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    theirs = base(**batch, **({} if family == "bloom" else {"position_ids": positions}))
    assert torch.equal(model(**batch).logits[kept], theirs.logits[kept])
    settings = dict(max_new_tokens=4, do_sample=False, eos_token_id=-1, return_dict_in_generate=True)
    new, expected = (each.generate(**batch, **settings, output_logits=True) for each in (model, base))
    assert torch.equal(new.sequences, expected.sequences)
    assert torch.equal(torch.stack(new.logits), torch.stack(expected.logits))


@torch.no_grad()
def test_an_open_gate_adds_the_mixture(family):
    """logits = head(b + g m), with what the family does to its logits written out."""
    base, model = language_model(family), gated(family, gate=0.7)
    input_ids = random_ids(2, 9)
    outputs = model(input_ids)
    combined = outputs.backbone_last_hidden_state + 0.7 * outputs.mixture
    torch.testing.assert_close(outputs.last_hidden_state, combined)
    head = base.get_output_embeddings()
    logits = F.linear(combined, head.weight, head.bias)
    logits = {
        "gemma2": lambda: 0.5 * (logits / 0.5).tanh(),
        "gemma3_text": lambda: 0.5 * (logits / 0.5).tanh(),
        "cohere": lambda: 0.25 * logits,
        "granite": lambda: logits / 3,
    }.get(family, lambda: logits)()
    torch.testing.assert_close(outputs.logits, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.compute_logits(combined), outputs.logits, rtol=0, atol=1e-5)
    assert (outputs.logits - base(input_ids).logits).abs().max() > 1e-3


@torch.no_grad()
def test_generation_with_an_open_gate(family):
    """Dynamic and static caches, left padding and beams give what recomputing everything gives."""
    model, batch = gated(family, gate=0.7), padded()
    settings = dict(max_new_tokens=5, do_sample=False, eos_token_id=-1)
    plain = model.generate(**batch, use_cache=False, **settings)
    assert torch.equal(model.generate(**batch, **settings), plain)
    # The library has no static cache for BLOOM, and windows alone have no room for the senses of the whole text.
    if family not in ("bloom", "mistral"):
        static = model.generate(**batch, cache_implementation="static", disable_compile=True, **settings)
        assert torch.equal(static, plain)
    beams = [model.generate(**batch, num_beams=3, use_cache=use_cache, **settings) for use_cache in (True, False)]
    assert torch.equal(*beams)
    for row in range(2):
        prompt = batch["input_ids"][row][batch["attention_mask"][row].bool()][None]
        assert torch.equal(model.generate(prompt, **settings)[0, -5:], plain[row, -5:])


@torch.no_grad()
def test_saving_and_loading(tmp_path, family):
    model, input_ids = gated(family, gate=0.7), random_ids(2, 9)
    model.save_pretrained(tmp_path)
    again, info = BackpackForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    tied = language_model(family).config.tie_word_embeddings
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied
    assert torch.equal(again(input_ids).logits, model(input_ids).logits)
    half = BackpackForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.backpack.residual_gate.weight.dtype == torch.float32 and half.lm_head.weight.dtype == torch.bfloat16
    assert half(input_ids).logits.dtype == torch.bfloat16


def test_a_training_step_moves_what_is_trained():
    """At gate 0 only the gate has a gradient; then all senses have."""
    model, input_ids = gated().train(), random_ids(4, 9)
    model.requires_grad_(False)
    parts = (model.backpack.sense_network, model.backpack.sense_weight_net)
    for part in parts:
        part.requires_grad_(True)
    model.backpack.residual_gate.requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(input_ids, labels=input_ids).loss.backward()
    assert model.backpack.residual_gate.weight.grad.abs() > 0
    assert all(not p.grad.any() for part in parts for p in part.parameters())
    for _ in range(2):
        optimizer.step()
        optimizer.zero_grad()
        model(input_ids, labels=input_ids).loss.backward()
    optimizer.step()
    for name, tensor in model.state_dict().items():
        trained = "sense_" in name or "residual_gate" in name
        assert torch.equal(tensor, before[name]) != trained, name


@torch.no_grad()
@pytest.mark.parametrize("mode", ["top_k", "uniform"])
def test_ablations_act_on_the_sense_path(mode):
    model, input_ids = gated(gate=0.7), random_ids(2, 9)
    full = model(input_ids)
    model.config.mixture_mode = mode
    ablated = model(input_ids)
    assert torch.equal(ablated.backbone_last_hidden_state, full.backbone_last_hidden_state)
    assert not torch.equal(ablated.mixture, full.mixture)
    torch.testing.assert_close(
        ablated.last_hidden_state - full.last_hidden_state, 0.7 * (ablated.mixture - full.mixture), rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_senses_and_interventions():
    model, input_ids = gated("phi", gate=0.7), random_ids(1, 9)
    senses = model.get_senses(input_ids)
    assert senses.shape == (1, 9, 4, 32)
    scores, words = model.nearest_words(senses[0, 0], top_k=3)  # the head's bias is no vote of a sense
    assert torch.equal(words, (senses[0, 0] @ model.lm_head.weight.T).topk(3).indices) and scores.shape == (4, 3)
    plain = model(input_ids)
    with model.intervene_on_senses(input_ids[0], 2, scale=0.0):
        silent = model(input_ids)
    assert not torch.equal(silent.logits, plain.logits)
    assert torch.equal(silent.backbone_last_hidden_state, plain.backbone_last_hidden_state)
    assert torch.equal(model(input_ids).logits, plain.logits)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama-untied", "phi", "gemma3_text", "opt-projected"])
@pytest.mark.parametrize("untied_senses", [False, True])
def test_resize_token_embeddings(family, untied_senses, tmp_path):
    model, input_ids = gated(family, gate=0.7), random_ids(2, 6)
    if untied_senses:
        before = model(input_ids).logits
        model.backpack.untie_sense_embeddings()
        assert torch.equal(model(input_ids).logits, before), "the copy scales embeddings as the original"
    before = model(input_ids).logits
    model.resize_token_embeddings(108)
    assert model.config.vocab_size == model.lm_head.out_features == 108
    torch.testing.assert_close(model(input_ids).logits[..., :97], before)
    assert model(input_ids + 10).logits.isfinite().all()
    model.save_pretrained(tmp_path)
    again = BackpackForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(input_ids).logits, model(input_ids).logits)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == model.config.tie_word_embeddings


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi"])
def test_the_sense_network_is_the_familys(family):
    config = gated(family).config
    expected = {
        "gpt2": ("gelu_new", 0.1, 0.1, 1e-5),
        "gemma2": ("gelu_pytorch_tanh", 0.0, 0.0, 1e-6),
        "phi": ("gelu_new", 0.0, 0.0, 1e-5),
    }[family]
    assert (config.hidden_act, config.resid_pdrop, config.embd_pdrop, config.layer_norm_epsilon) == expected
    assert gated(family, hidden_act="relu", resid_pdrop=0.3).config.hidden_act == "relu"


def test_the_base_is_not_touched_and_float32_is_the_default(tmp_path):
    base = language_model("llama").to(torch.float16)
    base.save_pretrained(tmp_path)
    assert BackpackForCausalLM.from_backbone(tmp_path, num_senses=4).dtype == torch.float32
    half = BackpackForCausalLM.from_backbone(tmp_path, backbone_kwargs={"dtype": torch.bfloat16}, num_senses=4)
    assert half.dtype == torch.bfloat16 and half.backpack.residual_gate.weight.dtype == torch.float32
    before = copy.deepcopy(base.state_dict())
    model = BackpackForCausalLM.from_backbone(base, num_senses=4)
    model.resize_token_embeddings(108)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert base.config.vocab_size == 97


def test_own_sense_embeddings_begin_as_the_word_embeddings():
    base = language_model("gemma2")  # whose embeddings scale what they give
    model = BackpackForCausalLM.from_backbone(base, num_senses=4, tie_sense_embeddings=False)
    own, words = model.backpack.sense_embeddings, model.get_input_embeddings()
    ids = random_ids(1, 5)
    assert (
        own is not words
        and torch.equal(own(ids), words(ids))
        and torch.equal(words(ids), base.model.embed_tokens(ids))
    )


def test_the_settings_of_generation_are_those_of_the_base():
    base = language_model("llama")
    base.generation_config = GenerationConfig(eos_token_id=[1, 2], do_sample=True, temperature=0.3)
    settings = BackpackForCausalLM.from_backbone(base, num_senses=4).generation_config
    assert (settings.eos_token_id, settings.do_sample, settings.temperature) == ([1, 2], True, 0.3)
    assert settings is not base.generation_config


@pytest.mark.parametrize("name", ["hidden_states", "attentions"])
def test_the_configuration_asks_for_the_states_of_the_backbone(name):
    model = gated("llama")
    model.set_attn_implementation("eager")
    ids = random_ids(1, 5)
    setattr(model.config, f"output_{name}", True)
    assert len(model(ids)[name]) == model.config.num_hidden_layers + (name == "hidden_states")
    assert model(ids, **{f"output_{name}": False}).get(name) is None


def test_a_small_sense_network_at_the_size_of_smollm2():
    config = AutoConfig.for_model(
        "llama", hidden_size=576, num_hidden_layers=30, num_attention_heads=9, vocab_size=49152, intermediate_size=1536
    )
    with torch.device("meta"):
        model = BackpackModel(BackpackConfig(backbone_config=config, residual_gate=True, sense_intermediate_scale=1))
    senses = sum(parameter.numel() for parameter in model.sense_network.parameters())
    assert senses == 8_310_528


def test_without_the_gate_senses_predict_alone():
    base = language_model("gemma2")
    model = spread_senses(BackpackForCausalLM.from_backbone(base, num_senses=4, residual_gate=False)).eval()
    outputs = model(random_ids(1, 5))
    assert model.backpack.residual_gate is None and outputs.last_hidden_state is outputs.mixture
    torch.testing.assert_close(outputs.logits, outputs.mixture @ base.lm_head.weight.T)


class Scaled(type(language_model("llama"))):
    """A Llama whose logits are something else than its head's."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = 2 * outputs.logits
        return outputs


def test_families_that_cannot_be_kept_exact(tmp_path):
    with pytest.raises(ValueError, match="With its gate closed, the Backpack is not the Scaled it was made from"):
        BackpackForCausalLM.from_backbone(Scaled(language_model("llama").config))
    for name, settings, message in [
        ("bert", ROTARY, "bidirectional BertConfig"),
        ("bart", dict(d_model=32, decoder_layers=1, decoder_attention_heads=4), "encoder-decoder model .bart."),
        (
            "mamba",
            dict(hidden_size=32, num_hidden_layers=1, state_size=4),
            "A MambaForCausalLM is not a decoder .* keeps keys",
        ),
        ("rwkv", dict(hidden_size=32, num_hidden_layers=2), "A RwkvForCausalLM is not a decoder .* keeps keys"),
    ]:
        config = AutoConfig.for_model(name, **SIZES | settings)
        spread(AutoModelForCausalLM.from_config(copy.deepcopy(config))).save_pretrained(tmp_path / name)
        config.save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            BackpackForCausalLM.from_backbone(tmp_path / name)


@pytest.mark.parametrize("config", [BertConfig(), T5Config()])
def test_backbones_that_are_no_decoders(config):
    with pytest.raises(ValueError, match="bidirectional BertConfig|T5Config, which is more than a decoder"):
        BackpackConfig(backbone_config=config)


def test_a_model_that_has_senses_already(tmp_path):
    tiny_backpack().save_pretrained(tmp_path / "ours")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "config.json").write_text('{"model_type": "gpt2", "num_senses": 4}')
    for folder in ("ours", "published"):
        with pytest.raises(ValueError, match="has senses already.*Load it with `from_pretrained`"):
            BackpackForCausalLM.from_backbone(tmp_path / folder)
    with pytest.raises(ValueError, match="has senses already"):
        BackpackForCausalLM.from_backbone(tiny_backpack())


def test_adapters_are_to_be_merged_first(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(language_model("llama"), peft.LoraConfig(task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="has an adapter beside its weights: merge it first"):
        BackpackForCausalLM.from_backbone(model)
    BackpackForCausalLM.from_backbone(model.merge_and_unload())


def test_the_older_name_of_the_precision_is_heard(tmp_path):
    language_model("llama").save_pretrained(tmp_path)
    model = BackpackForCausalLM.from_backbone(tmp_path, num_senses=4, backbone_kwargs={"torch_dtype": "bfloat16"})
    assert model.dtype == torch.bfloat16


def test_weights_that_are_missing_quantised_or_of_another_size(tmp_path):
    base = language_model("llama")
    base.save_pretrained(tmp_path / "partial", state_dict={"model.norm.weight": base.model.norm.weight})
    with pytest.raises(ValueError, match="do not fill a LlamaForCausalLM.*missing_keys.*q_proj"):
        BackpackForCausalLM.from_backbone(tmp_path / "partial")
    base.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    base.config.save_pretrained(tmp_path / "quantised")
    with pytest.raises(ValueError, match="quantised \\(gptq\\).*dequantize"):
        BackpackForCausalLM.from_backbone(tmp_path / "quantised")
    untied = language_model("llama-untied")
    untied.lm_head = torch.nn.Linear(32, 90, bias=False)
    with pytest.raises(ValueError, match=r"have \(97, 97, 90\) words"):
        BackpackForCausalLM.from_backbone(untied)
    for fields in ({"tie_word_embeddings": True}, {"lm_head_bias": True}):
        for gate in (True, False):
            with pytest.raises(ValueError, match=f"`{next(iter(fields))}` is True, but the head of Llama.* is kept"):
                BackpackForCausalLM.from_backbone(language_model("llama-untied"), residual_gate=gate, **fields)
    with pytest.raises(Exception, match="`num_senses` must lie between 1 and .* \\(32\\).* got 40"):
        BackpackForCausalLM.from_backbone(language_model("llama"), num_senses=40)
