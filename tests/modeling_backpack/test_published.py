"""Checkpoints of the published layout: built here with random weights, read, compared, saved in ours, refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from modeling_backpack import (
    BackpackConfig,
    BackpackForCausalLM,
    BackpackForSequenceClassification,
    BackpackModel,
)
from modeling_backpack.conversion_backpack import inverse_layer_losses, set_inverse_layer_scaling
from tests.modeling_backpack.tiny import GPT2, random_ids, tiny_backpack, tiny_published
from tests.reference.backpack import backpack


WORD_ALIASES = ("backpack.gpt2_model.wte.weight", "backpack.word_embeddings.weight", "lm_head.weight")
POSITION_ALIASES = ("backpack.gpt2_model.wpe.weight", "backpack.position_embeddings.weight")


def published_config(**changes):
    return GPT2 | {
        "model_type": "gpt2",
        "architectures": ["BackpackGPT2LMHeadModel"],
        "auto_map": {
            "AutoConfig": "configuration_backpack_gpt2.BackpackGPT2Config",
            "AutoModelForCausalLM": "modeling_backpack_gpt2.BackpackGPT2LMHeadModel",
        },
        "activation_function": "gelu_new",
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "n_inner": None,
        "num_senses": 4,
        "reorder_and_upcast_attn": False,
        "scale_attn_by_inverse_layer_idx": True,
        "scale_attn_weights": True,
        "sense_intermediate_scale": 4,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "torch_dtype": "float32",
        "transformers_version": "4.29.0.dev0",
        "use_cache": True,
        **changes,
    }


def stale_buffers():
    """What transformers 4.29 saved with every layer."""
    buffers = {}
    for layer in range(3):
        prefix = f"backpack.gpt2_model.h.{layer}.attn"
        buffers[f"{prefix}.bias"] = torch.ones(64, 64, dtype=torch.bool).tril()[None, None]
        buffers[f"{prefix}.masked_bias"] = torch.tensor(-1e4)
    return buffers


def write(folder, state, file_format, **config):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(published_config(**config)))
    if file_format == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def state():
    return {name: tensor.clone() for name, tensor in tiny_published().state_dict().items()}


def assert_like_restatement(model, state, num_senses=4, **settings):
    input_ids = random_ids(2, 10)
    with torch.no_grad():
        logits = model(input_ids).logits
        for row in range(2):
            expected = backpack(state, input_ids[row], 3, 4, num_senses, **settings)["logits"]
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=2e-5)


def test_bin_with_stale_buffers(tmp_path, state):
    write(tmp_path, state | stale_buffers(), "bin")
    model = BackpackForCausalLM.from_pretrained(tmp_path)
    assert not model.training and model.lm_head.weight is model.get_input_embeddings().weight
    assert model.config.backbone_config.n_positions == 64 and model.config.num_senses == 4
    assert_like_restatement(model, state)


@pytest.mark.parametrize("word", WORD_ALIASES)
@pytest.mark.parametrize("position", POSITION_ALIASES)
def test_safetensors_with_one_alias(tmp_path, state, word, position):
    dropped = set(WORD_ALIASES + POSITION_ALIASES) - {word, position}
    write(tmp_path, {name: tensor for name, tensor in state.items() if name not in dropped}, "safetensors")
    assert_like_restatement(BackpackForCausalLM.from_pretrained(tmp_path), state)


def test_senses_are_untied_while_loading(tmp_path, state):
    write(tmp_path, state, "safetensors")
    model = BackpackForCausalLM.from_pretrained(tmp_path, tie_sense_embeddings=False)
    assert torch.equal(model.backpack.sense_embeddings.weight, model.get_input_embeddings().weight)
    assert_like_restatement(model, state)


def test_an_adapter_is_loaded_with_its_base(tmp_path, state):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = BackpackForCausalLM.from_pretrained(write(tmp_path / "base", state, "safetensors"))
    settings = {"r": 2, "target_modules": ["c_attn"], "init_lora_weights": False, "fan_in_fan_out": True}
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    loaded = BackpackForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    input_ids = random_ids(2, 5)
    torch.testing.assert_close(loaded(input_ids).logits, adapted(input_ids).logits)


def test_levanter_divides_the_mixture(tmp_path, state):
    write(tmp_path, state, "safetensors", model_type="backpack-gpt2")
    model = BackpackForCausalLM.from_pretrained(tmp_path)
    assert model.config.sense_scale == 1 / 4
    assert_like_restatement(model, state, sense_scale=1 / 4)


def test_levanter_twin_that_does_not_divide(tmp_path, state):
    """Fields of the configuration can be given as arguments, as with any other model."""
    write(tmp_path, state, "safetensors", model_type="backpack-gpt2")
    model = BackpackForCausalLM.from_pretrained(tmp_path, sense_scale=1.0, mixture_norm_matched=True, dtype="float32")
    assert model.config.sense_scale == 1.0 and model.config.mixture_norm_matched
    assert_like_restatement(model, state)


@pytest.mark.parametrize("inverse_layer", [True, False])
def test_checkpoint_of_the_sensia_collection(tmp_path, state, inverse_layer):
    """The same layout and a flag that may not be true; what its own code returns besides logits is returned here."""
    sensia = {"attn_implementation": "sdpa", "_name_or_path": "backpack-gpt2-small", "transformers_version": "4.57.1"}
    write(tmp_path, state, "safetensors", **sensia)
    model = BackpackForCausalLM.from_pretrained(tmp_path, scale_attn_by_inverse_layer_idx=inverse_layer)
    ids = random_ids(2, 10)
    outputs = model(ids, output_senses=True, output_sense_weights=True, output_hidden_states=True)
    for row in range(2):
        expected = backpack(state, ids[row], 3, 4, 4, inverse_layer=inverse_layer)
        for name, value in {
            "senses": outputs.senses,
            "weights": outputs.sense_weights,
            "mixture": outputs.last_hidden_state,
            "hidden": outputs.hidden_states[-1],
            "logits": outputs.logits,
        }.items():
            torch.testing.assert_close(value[row], expected[name], rtol=0, atol=2e-5)


def test_senses_that_do_not_divide_the_hidden_size(tmp_path):
    state = tiny_published(num_senses=5, sense_intermediate_scale=2).state_dict()
    write(tmp_path, state, "bin", num_senses=5, sense_intermediate_scale=2)
    assert_like_restatement(BackpackForCausalLM.from_pretrained(tmp_path), state, num_senses=5)


def test_saved_in_our_layout_and_read_again(tmp_path, state):
    model = BackpackForCausalLM.from_pretrained(write(tmp_path / "theirs", state, "bin"))
    model.save_pretrained(tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["model_type"] == "backpack" and written["backbone_config"]["model_type"] == "gpt2"
    again = BackpackForCausalLM.from_pretrained(tmp_path / "ours")
    input_ids = random_ids(2, 10)
    assert torch.equal(again(input_ids).logits, model(input_ids).logits)
    settings = dict(max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert torch.equal(again.generate(input_ids, **settings), model.generate(input_ids, **settings))


def test_headless_model_and_configuration(tmp_path, state):
    write(tmp_path, state, "safetensors")
    config = BackpackConfig.from_pretrained(tmp_path)
    assert (config.num_senses, config.hidden_size, config.model_type) == (4, 32, "backpack")
    base, whole = BackpackModel.from_pretrained(tmp_path), BackpackForCausalLM.from_pretrained(tmp_path)
    input_ids = random_ids(2, 10)
    assert torch.equal(base(input_ids).last_hidden_state, whole(input_ids).last_hidden_state)


def test_other_arguments_of_from_pretrained(tmp_path, state):
    write(tmp_path, state, "safetensors")
    model = BackpackForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, device_map="cpu")
    assert model.dtype == torch.bfloat16
    model, info = BackpackForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_weights_are_of_the_place_that_the_configuration_is_of(tmp_path, state):
    write(tmp_path, state, "safetensors")
    write(tmp_path / "second", {name: tensor + 1 for name, tensor in state.items()}, "safetensors")
    first, second = (BackpackForCausalLM.from_pretrained(tmp_path, subfolder=name) for name in ("", "second"))
    expected = first.get_input_embeddings().weight + 1
    torch.testing.assert_close(second.get_input_embeddings().weight, expected)


def test_a_classifier_begins_with_a_checkpoint(tmp_path, state):
    write(tmp_path, state, "safetensors")
    model = BackpackForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    whole = BackpackForCausalLM.from_pretrained(tmp_path, config=str(tmp_path))
    ids = random_ids(2, 10)
    assert model.score.out_features == 3
    assert torch.equal(model.base_model(ids).last_hidden_state, whole.base_model(ids).last_hidden_state)


@pytest.mark.parametrize("trained_with", [True, False])
def test_inverse_layer_switch(tmp_path, trained_with):
    """The flag of the file says True; the argument overrides it, and the loss of a text tells what is right."""
    state = tiny_published().state_dict()
    write(tmp_path, state, "safetensors")
    model = BackpackForCausalLM.from_pretrained(tmp_path, scale_attn_by_inverse_layer_idx=trained_with)
    assert_like_restatement(model, state, inverse_layer=trained_with)
    # A text that this setting predicts best: its own samples.
    text = model.generate(random_ids(16, 1), max_new_tokens=40, do_sample=True, top_k=0, eos_token_id=-1)
    wrong = BackpackForCausalLM.from_pretrained(tmp_path, scale_attn_by_inverse_layer_idx=not trained_with)
    for loaded in (model, wrong):
        before = loaded.config.backbone_config.scale_attn_by_inverse_layer_idx
        losses = inverse_layer_losses(loaded, text)
        assert losses[trained_with] < losses[not trained_with]
        assert losses[before] == pytest.approx(loaded(text, labels=text).loss.item(), rel=1e-5)
    set_inverse_layer_scaling(wrong, trained_with)
    torch.testing.assert_close(wrong(text).logits, model(text).logits)
    # The switch is part of what is saved.
    wrong.save_pretrained(tmp_path / "ours")
    again = BackpackForCausalLM.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(again(text).logits, model(text).logits)
    again = BackpackForCausalLM.from_pretrained(tmp_path / "ours", scale_attn_by_inverse_layer_idx=not trained_with)
    assert (again(text).logits - model(text).logits).abs().max() > 1e-3


def test_inverse_layer_switch_needs_a_gpt2():
    with pytest.raises(ValueError, match="Only a GPT-2 backbone.*'llama'"):
        set_inverse_layer_scaling(tiny_backpack("llama"), True)


@pytest.mark.parametrize("model_class", [BackpackModel, BackpackForCausalLM])
def test_inverse_layer_switch_of_our_layout(tmp_path, model_class):
    """The argument goes with others, for the headless model too, and is refused where it means nothing."""
    tiny_backpack().save_pretrained(tmp_path / "gpt2")
    settings = dict(scale_attn_by_inverse_layer_idx=False, mixture_mode="uniform", revision="main")
    model = model_class.from_pretrained(tmp_path / "gpt2", **settings)
    assert not model.config.backbone_config.scale_attn_by_inverse_layer_idx and model.config.mixture_mode == "uniform"
    switched = model_class.from_pretrained(tmp_path / "gpt2", mixture_mode="uniform")
    set_inverse_layer_scaling(switched, False)
    input_ids = random_ids(1, 6)
    assert torch.equal(switched(input_ids).last_hidden_state, model(input_ids).last_hidden_state)
    tiny_backpack("llama").save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="Only a GPT-2 backbone"):
        model_class.from_pretrained(tmp_path / "llama", scale_attn_by_inverse_layer_idx=False)


@pytest.mark.parametrize("file_format", ["bin", "safetensors"])
def test_nano_backpack_is_refused_by_name(tmp_path, state, file_format):
    nano = {
        "wte.weight": torch.zeros(97, 32),
        "backpack.sense_vector_layer.ff_1.c_fc.weight": torch.zeros(128, 32),
        "backpack.contextualization_layer.c_attn.weight": torch.zeros(64, 32),
        "backpack.logit_layer.lm_head.weight": torch.zeros(97, 32),
    }
    write(tmp_path, nano, file_format)
    with pytest.raises(ValueError, match="nanoBackpackLM.*different architecture"):
        BackpackForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="nanoBackpackLM"):
        BackpackForCausalLM.from_pretrained(None, config=tiny_backpack().config, state_dict=nano)
    with pytest.raises(ValueError, match="nanoBackpackLM"):
        tiny_backpack().load_state_dict(nano, strict=False)


def test_nano_backpack_beside_our_configuration(tmp_path):
    """Not half-loaded, the rest of the model left at random."""
    tiny_backpack().config.save_pretrained(tmp_path)
    save_file({"backpack.sense_vector_layer.ff_1.c_fc.weight": torch.zeros(128, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="nanoBackpackLM"):
        BackpackForCausalLM.from_pretrained(tmp_path)


def test_incomplete_or_foreign_weights(tmp_path, state):
    partial = {name: tensor for name, tensor in state.items() if "final_mlp" not in name}
    with pytest.raises(ValueError, match="lacks .*sense_network.final_mlp"):
        BackpackForCausalLM.from_pretrained(write(tmp_path / "partial", partial, "safetensors"))
    with pytest.raises(ValueError, match="holds .*'backpack.extra'.* unknown"):
        extra = state | {"backpack.extra": torch.zeros(1)}
        BackpackForCausalLM.from_pretrained(write(tmp_path / "extra", extra, "safetensors"))
    foreign = {"transformer.h.0.ln_1.weight": torch.zeros(32)}
    with pytest.raises(ValueError, match="not a whole Backpack of the published layout"):
        BackpackForCausalLM.from_pretrained(write(tmp_path / "foreign", foreign, "safetensors"))


def test_missing_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(published_config()))
    with pytest.raises(OSError, match="model.safetensors.* pytorch_model.bin"):
        BackpackForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("file_format", ["bin", "safetensors"])
def test_sharded_files(tmp_path, state, file_format):
    names = sorted(state)
    halves = {name: state[name].clone() for name in names[:20]}, {name: state[name].clone() for name in names[20:]}
    stem, suffix = ("pytorch_model", "bin") if file_format == "bin" else ("model", "safetensors")
    write(tmp_path, state, file_format)
    (tmp_path / f"{stem}.{suffix}").unlink()
    weight_map = {}
    for i, half in enumerate(halves):
        file = f"{stem}-0000{i + 1}-of-00002.{suffix}"
        (torch.save if file_format == "bin" else save_file)(half, tmp_path / file)
        weight_map |= dict.fromkeys(half, file)
    index = tmp_path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_like_restatement(BackpackForCausalLM.from_pretrained(tmp_path), state)
    (tmp_path / f"{stem}-00002-of-00002.{suffix}").unlink()
    with pytest.raises(OSError, match="00002-of-00002"):
        BackpackForCausalLM.from_pretrained(tmp_path)


def test_unpickling_is_weights_only(tmp_path, state):
    """A file that would run code when unpickled is refused."""
    (tmp_path / "config.json").write_text(json.dumps(published_config()))
    torch.save(state | {"payload": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        BackpackForCausalLM.from_pretrained(tmp_path)


class Payload:
    def __reduce__(self):
        return (print, ("code of the file was run",))
