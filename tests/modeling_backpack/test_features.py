"""What users of transformers take for granted: attention, outputs, resizing, compilation, precision."""

import logging

import pytest
import torch
from torch.nn import functional as F
from transformers import DynamicCache, TorchAoConfig

import modeling_backpack.modeling_backpack
from modeling_backpack import BackpackForCausalLM
from modeling_backpack.senses_backpack import causal_sense_mask
from tests.modeling_backpack.tiny import BACKBONES, VOCAB_SIZE, random_ids, tiny_backpack


@pytest.fixture(scope="module")
def padded():
    """Two texts of 9 and 5 tokens, the second padded on the left."""
    input_ids, attention_mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    input_ids[1, :4], attention_mask[1, :4] = 0, 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_sdpa_is_eager(padded, backbone):
    model = tiny_backpack(backbone)
    model.set_attn_implementation("eager")
    eager = model(**padded, output_attentions=True)
    assert len(eager.attentions) == model.config.num_hidden_layers
    model.set_attn_implementation("sdpa")
    sdpa = model(**padded)
    kept = padded["attention_mask"].bool()
    torch.testing.assert_close(sdpa.logits[kept], eager.logits[kept], rtol=0, atol=2e-5)
    assert model.config.backbone_config._attn_implementation == "sdpa"


def test_attention_implementation_by_argument(tmp_path):
    tiny_backpack().save_pretrained(tmp_path)
    model = BackpackForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert model.backpack.backbone.config._attn_implementation == "eager"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_outputs(padded, backbone):
    model = tiny_backpack(backbone, attn_implementation="eager")
    layers = model.config.num_hidden_layers
    outputs = model(
        **padded, output_hidden_states=True, output_attentions=True, output_senses=True, output_sense_weights=True
    )
    assert [state.shape for state in outputs.hidden_states] == [(2, 9, 32)] * (layers + 1)
    torch.testing.assert_close(outputs.hidden_states[-1], outputs.backbone_last_hidden_state)
    assert [weights.shape for weights in outputs.attentions] == [(2, 4, 9, 9)] * layers
    assert outputs.last_hidden_state.shape == (2, 9, 32)
    assert outputs.senses.shape == (2, 9, 4, 32) and outputs.sense_weights.shape == (2, 4, 9, 9)
    plain = model(**padded)
    assert plain.hidden_states is plain.attentions is plain.senses is plain.sense_weights is None
    as_tuple = model(**padded, return_dict=False, use_cache=False)
    torch.testing.assert_close(as_tuple[0], plain.logits, rtol=0, atol=1e-5)
    as_tuple = model(**padded, return_dict=False, labels=padded["input_ids"])
    assert as_tuple[0].ndim == 0 and as_tuple[1].shape == (2, 9, VOCAB_SIZE)


@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("with_cache", [False, True])
def test_gradient_checkpointing(padded, backbone, use_reentrant, with_cache):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_backpack(backbone, resid_pdrop=0.0, embd_pdrop=0.0)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            assert model.is_gradient_checkpointing
            assert model.backpack.sense_network.gradient_checkpointing
            assert model.backpack.sense_weight_net.gradient_checkpointing
        model.train()
        cache = {"past_key_values": DynamicCache(config=model.config)} if with_cache else {"use_cache": False}
        model(**padded, labels=padded["input_ids"], **cache).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_inputs_embeds_carry_gradients():
    model, input_ids = tiny_backpack(), random_ids(2, 6)
    embeddings = model.get_input_embeddings()(input_ids).detach().requires_grad_()
    outputs = model(inputs_embeds=embeddings, labels=input_ids, output_senses=True)
    torch.testing.assert_close(outputs.senses, model.get_senses(input_ids))
    outputs.loss.backward()
    assert embeddings.grad.abs().sum() > 0
    model.backpack.untie_sense_embeddings()
    with pytest.raises(ValueError, match="`inputs_embeds` cannot be used with `tie_sense_embeddings=False`"):
        model(inputs_embeds=embeddings)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_resize_token_embeddings(tmp_path, tied):
    model, input_ids = tiny_backpack(), random_ids(2, 6)
    if not tied:
        model.backpack.untie_sense_embeddings()
    before = model(input_ids).logits
    model.resize_token_embeddings(VOCAB_SIZE + 11)
    assert model.config.vocab_size == model.lm_head.out_features == VOCAB_SIZE + 11
    assert model.lm_head.weight is model.get_input_embeddings().weight
    after = model(input_ids).logits
    assert after.shape[-1] == VOCAB_SIZE + 11
    torch.testing.assert_close(after[..., :VOCAB_SIZE], before)
    assert model.get_senses([VOCAB_SIZE + 10]).isfinite().all()
    with torch.enable_grad():
        model(input_ids + 11, labels=input_ids + 11).loss.backward()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(BackpackForCausalLM.from_pretrained(tmp_path)(input_ids).logits, after)
    model.resize_token_embeddings(VOCAB_SIZE)
    torch.testing.assert_close(model(input_ids).logits, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision(padded, backbone, dtype):
    exact = tiny_backpack(backbone)(**padded).logits
    model = tiny_backpack(backbone, dtype=dtype)
    outputs = model(**padded, labels=padded["input_ids"])
    assert outputs.logits.dtype == dtype and outputs.loss.dtype == torch.float32
    assert outputs.logits.isfinite().all() and outputs.loss.isfinite()
    assert (outputs.logits.float() - exact)[padded["attention_mask"].bool()].abs().mean() < 0.05 * exact.std()
    outputs.loss.backward()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()
    new = model.generate(**padded, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert new.shape == (2, 13)
    model.config.mixture_mode, model.config.mixture_norm_matched = "top_k", True
    assert model(**padded).logits.isfinite().all()


def test_float16_on_a_cpu_is_slow_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr("transformers.utils.logging.get_verbosity", lambda: 30)
    logging.getLogger("transformers").propagate = True
    modeling_backpack.modeling_backpack.logger.warning_once.cache_clear()
    tiny_backpack()(random_ids(1, 3))
    assert "float16" not in caplog.text
    tiny_backpack(dtype=torch.float16)(random_ids(1, 3))
    assert "several times slower" in caplog.text and "dtype=torch.float32" in caplog.text


def test_meta_device():
    with torch.device("meta"):
        model = BackpackForCausalLM(tiny_backpack("llama").config)
        assert model(torch.ones(2, 5, dtype=torch.long)).logits.shape == (2, 5, VOCAB_SIZE)


def test_row_of_padding_only():
    model = tiny_backpack()
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    outputs = model(random_ids(2, 3), mask, output_sense_weights=True)
    assert outputs.logits.isfinite().all() and outputs.sense_weights.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_compile_without_graph_breaks(padded, backbone):
    model = tiny_backpack(backbone)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        outputs = compiled(**padded, labels=padded["input_ids"], use_cache=False)
        expected = model(**padded, labels=padded["input_ids"], use_cache=False)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.loss, expected.loss)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_compiled_training_step(padded, backbone):
    model = tiny_backpack(backbone)
    labels = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, -100)
    settings = dict(labels=labels, use_cache=False)
    gradients = []
    torch._dynamo.reset()
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        loss = step(**padded, **settings).loss
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for compiled, plain in zip(*gradients):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_export_of_any_shape(padded, backbone):
    class Logits(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids, attention_mask, use_cache=False).logits

    model = tiny_backpack(backbone)
    shape = {0: torch.export.Dim("batch", max=8), 1: torch.export.Dim("length", max=64)}
    program = torch.export.export(
        Logits(model), tuple(padded.values()), dynamic_shapes=(shape, shape), strict=False
    ).module()
    for other in (padded, {"input_ids": random_ids(3, 12), "attention_mask": torch.ones(3, 12, dtype=torch.long)}):
        kept = other["attention_mask"].bool()
        torch.testing.assert_close(program(*other.values())[kept], model(**other).logits[kept], rtol=0, atol=1e-5)


def test_device_map(tmp_path):
    model = tiny_backpack()
    model.save_pretrained(tmp_path)
    loaded = BackpackForCausalLM.from_pretrained(tmp_path, device_map="auto")
    input_ids = random_ids(2, 6)
    torch.testing.assert_close(loaded(input_ids).logits, model(input_ids).logits)
    kept_whole = {"BackpackSenseNetwork", "BackpackSenseWeightNetwork", "GPT2Block"}
    assert kept_whole <= set(model._no_split_modules)
    # What does not fit goes to disk; the result is the same.
    bytes_ = sum(parameter.numel() * 4 for parameter in model.parameters())
    split = BackpackForCausalLM.from_pretrained(
        tmp_path, device_map="auto", max_memory={"cpu": bytes_ // 2}, offload_folder=str(tmp_path / "offload")
    )
    assert "disk" in {str(device) for device in split.hf_device_map.values()}
    torch.testing.assert_close(split(input_ids).logits, model(input_ids).logits, rtol=0, atol=1e-5)
    # The words themselves on disk.
    places = {"backpack.backbone": "disk", "backpack.sense_network": "cpu", "backpack.sense_weight_net": "cpu"}
    places |= {"lm_head": "disk"}
    aside = BackpackForCausalLM.from_pretrained(tmp_path, device_map=places, offload_folder=str(tmp_path / "words"))
    torch.testing.assert_close(aside.get_senses([3, 5]), model.get_senses([3, 5]))
    word = int(input_ids[0, 0])
    with aside.intervene_on_senses([word], 1, scale=0.0), model.intervene_on_senses([word], 1, scale=0.0):
        torch.testing.assert_close(aside(input_ids).logits, model(input_ids).logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        split.generate(input_ids, max_new_tokens=3, do_sample=False, eos_token_id=-1),
        model.generate(input_ids, max_new_tokens=3, do_sample=False, eos_token_id=-1),
    )


@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_int8_weights(backbone):
    """Dynamic int8 of torch itself; quantisers of other packages replace the same `nn.Linear` modules."""
    model, input_ids = tiny_backpack(backbone), random_ids(2, 8)
    exact = model(input_ids).logits
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert "quantized" in type(quantised.backpack.sense_network.final_mlp.c_proj).__module__
    similarity = F.cosine_similarity(quantised(input_ids).logits, exact, dim=-1)
    assert similarity.mean() > 0.95
    quantised.generate(input_ids, max_new_tokens=3, do_sample=False, eos_token_id=-1)


@pytest.mark.parametrize("backbone", ["gpt2", "llama"])
def test_quantised_loading(tmp_path, backbone):
    pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao.quantization import Int8WeightOnlyConfig

    model, input_ids = tiny_backpack(backbone), random_ids(2, 8)
    model.save_pretrained(tmp_path / "exact")
    settings = TorchAoConfig(Int8WeightOnlyConfig())
    quantised = BackpackForCausalLM.from_pretrained(tmp_path / "exact", quantization_config=settings)
    assert type(quantised.backpack.sense_network.final_mlp.c_proj.weight) is not torch.nn.Parameter
    assert quantised.lm_head.weight is quantised.get_input_embeddings().weight
    logits = quantised(input_ids).logits
    assert F.cosine_similarity(logits, model(input_ids).logits, dim=-1).mean() > 0.99
    quantised.generate(input_ids, max_new_tokens=3, do_sample=False, eos_token_id=-1)
    quantised.save_pretrained(tmp_path / "quantised")
    again = BackpackForCausalLM.from_pretrained(tmp_path / "quantised")
    torch.testing.assert_close(again(input_ids).logits, logits)


def test_attention_that_the_backbone_lacks():
    """The backbone decides: GPT-2 has no flex attention, Llama has."""
    with pytest.raises(ValueError, match="GPT2Model does not support .*flex_attention"):
        tiny_backpack(attn_implementation="flex_attention")
    tiny_backpack("llama", attn_implementation="flex_attention")


def test_padding_counts_where_all_layers_slide():
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    mask[..., 0] = False
    kinds = "full_attention", "sliding_attention"
    full, sliding = (causal_sense_mask({kind: mask}, torch.arange(3))(3) for kind in kinds)
    assert not full[..., 0].any() and torch.equal(full, sliding)


def test_masks_that_are_no_tensors():
    """Block masks of flex attention would otherwise be lost on the senses."""
    with pytest.raises(ValueError, match="`attention_mask` is a object.*DynamicCache"):
        causal_sense_mask(object(), torch.arange(3))
    with pytest.raises(ValueError, match="`attention_mask` is a object"):
        causal_sense_mask({"full_attention": object()}, torch.arange(3))
