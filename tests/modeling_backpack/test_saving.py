"""Saving, loading, and loading in a process that cannot import this repository."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from modeling_backpack import BackpackConfig, BackpackForCausalLM, BackpackModel
from tests.modeling_backpack.tiny import BACKBONES, random_ids, tiny_backpack


REMOTE = """
import importlib.util, json, sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

assert importlib.util.find_spec("modeling_backpack") is None
results = {}
for folder in json.loads(sys.argv[1]):
    input_ids = torch.load(folder + "/ids.pt", weights_only=True)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    base = AutoModel.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        logits = model(input_ids).logits
        mixture = base(input_ids).last_hidden_state
        new = model.generate(input_ids, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    model.save_pretrained(folder + "/again")
    results[folder] = {
        "module": type(model).__module__, "num_senses": config.num_senses, "logits": logits.tolist(),
        "mixture": mixture.tolist(), "new": new.tolist(),
    }
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    models = {}
    # The last is a language model with senses added: a head of its own, and a gate.
    for backbone, config in (("gpt2", {}), ("llama", {}), ("llama", {"residual_gate": True, "lm_head_bias": True})):
        folder = tmp_path_factory.mktemp(backbone)
        model = tiny_backpack(backbone, **config)
        model.save_pretrained(folder)
        torch.save(random_ids(2, 7), folder / "ids.pt")
        models[str(folder)] = model
    return models


def test_folder_holds_safetensors_json_and_code(saved):
    for folder, model in saved.items():
        assert {name for name in os.listdir(folder) if not name.endswith(".pt")} - {"again"} == {
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "configuration_backpack.py",
            "conversion_backpack.py",
            "modeling_backpack.py",
            "senses_backpack.py",
        }
        with safe_open(f"{folder}/model.safetensors", "pt") as file:
            names = set(file.keys())
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        assert names == model.state_dict().keys() - tied


def test_round_trip(saved):
    for folder, model in saved.items():
        input_ids = random_ids(2, 7)
        again = BackpackForCausalLM.from_pretrained(folder)
        tied = again.lm_head.weight is again.get_input_embeddings().weight
        assert tied == model.config.tie_word_embeddings
        assert torch.equal(again(input_ids).logits, model(input_ids).logits)
        base = BackpackModel.from_pretrained(folder)
        assert torch.equal(base(input_ids).last_hidden_state, model(input_ids).last_hidden_state)


def test_remote_code_in_a_process_without_the_repository(saved, tmp_path):
    # Without `site` (-S) an editable installation of this repository is not found either.
    program = f"import sys; sys.path += {[path for path in sys.path if 'site-packages' in path]!r}\n" + REMOTE
    command = [sys.executable, "-I", "-S", "-c", program, json.dumps(list(saved))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    for folder, model in saved.items():
        input_ids, result = random_ids(2, 7), results[folder]
        assert result["module"].startswith("transformers_modules.")
        assert result["num_senses"] == 4
        with torch.no_grad():
            outputs = model(input_ids)
            new = model.generate(input_ids, max_new_tokens=4, do_sample=False, eos_token_id=-1)
        torch.testing.assert_close(torch.tensor(result["logits"]), outputs.logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.tensor(result["mixture"]), outputs.last_hidden_state, rtol=0, atol=1e-5)
        assert result["new"] == new.tolist()
        # Saved again by that process, the folder still carries its code and loads here.
        assert os.path.exists(f"{folder}/again/modeling_backpack.py")
        assert torch.equal(BackpackForCausalLM.from_pretrained(f"{folder}/again")(input_ids).logits, outputs.logits)


def test_senses_of_their_own_are_saved(tmp_path):
    model, input_ids = tiny_backpack(), random_ids(1, 5)
    before = model(input_ids, output_senses=True)
    model.backpack.untie_sense_embeddings()
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)
    after = model(input_ids, output_senses=True)
    assert torch.equal(before.senses, after.senses) and not torch.equal(before.logits, after.logits)
    model.save_pretrained(tmp_path)
    again = BackpackForCausalLM.from_pretrained(tmp_path)
    assert again.config.tie_sense_embeddings is False
    assert torch.equal(again(input_ids).logits, after.logits)


@pytest.mark.parametrize("given", ["field", "configuration"])
def test_senses_that_are_untied_while_loading_are_those_of_the_checkpoint(tmp_path, given):
    model, input_ids = tiny_backpack(), random_ids(1, 5)
    model.save_pretrained(tmp_path)
    untied = {"tie_sense_embeddings": False}
    if given == "configuration":
        untied = {"config": BackpackConfig.from_pretrained(tmp_path, **untied)}
    again, info = BackpackForCausalLM.from_pretrained(tmp_path, output_loading_info=True, **untied)
    assert not info["missing_keys"] and torch.equal(again(input_ids).logits, model(input_ids).logits)
    senses = again.backpack.sense_embeddings.weight
    assert again.config.tie_sense_embeddings is False and senses is not again.get_input_embeddings().weight


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_loads_in_the_saved_precision(tmp_path, backbone):
    model = tiny_backpack(backbone, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    again = BackpackForCausalLM.from_pretrained(tmp_path)
    assert again.dtype == torch.bfloat16
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
