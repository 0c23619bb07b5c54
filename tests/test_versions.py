"""
A smoke test for other versions of the dependencies than the pinned ones: `make test-versions` runs it with the oldest
set (`constraints-oldest.txt`) and with the newest that pip gives.
"""

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, StaticCache, Trainer, TrainingArguments

import modeling_backpack
import sensia_trainer
from modeling_backpack import BackpackConfig, BackpackForCausalLM
from tests.tiny import tiny_trainer


RELEASED = Path(__file__).resolve().parents[1] / "model_cards" / "backpack-micro-sensia-id"
SIZES = dict(vocab_size=97, bos_token_id=0, eos_token_id=0, pad_token_id=0, num_hidden_layers=2)
BACKBONES = {
    "gpt2": lambda: GPT2Config(**SIZES, n_embd=32, n_head=4, n_positions=64),
    "llama": lambda: LlamaConfig(**SIZES, hidden_size=32, intermediate_size=48, num_attention_heads=4),
}
OF_EXTRAS = ("gradio",)  # what a module may need that the package does not
GREEDY = dict(max_new_tokens=6, do_sample=False, eos_token_id=-1)
REMOTE = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True, dtype=torch.float32)
inputs = tokenizer("Pada tahun", return_tensors="pt")
settings = dict(max_new_tokens=6, do_sample=False)
new = [model.generate(**inputs, use_cache=cached, **settings).tolist() for cached in (True, False)]
text = tokenizer.decode(new[0][0], skip_special_tokens=True)
print(json.dumps({"module": type(model).__module__, "new": new, "text": text}))
"""


@pytest.fixture(params=BACKBONES)
def model(request):
    torch.manual_seed(0)
    model = BackpackForCausalLM(BackpackConfig(backbone_config=BACKBONES[request.param](), num_senses=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("package", [modeling_backpack, sensia_trainer])
def test_every_module_can_be_imported(package):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in OF_EXTRAS:
                raise


def test_generation(model):
    """Cached, uncached, with a static cache, by beams, padded on the left: the same tokens."""
    prompts = torch.randint(1, 97, (2, 5))
    plain = model.generate(prompts, use_cache=False, **GREEDY)
    assert torch.equal(model.generate(prompts, **GREEDY), plain)
    assert torch.equal(model.generate(prompts, cache_implementation="static", disable_compile=True, **GREEDY), plain)
    padded = {
        "input_ids": torch.nn.functional.pad(prompts, (3, 0)),
        "attention_mask": torch.nn.functional.pad(torch.ones_like(prompts), (3, 0)),
    }
    assert torch.equal(model.generate(**padded, **GREEDY)[:, 3:], plain)
    beams = [model.generate(prompts, num_beams=3, use_cache=use_cache, **GREEDY) for use_cache in (True, False)]
    assert torch.equal(*beams)


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
def test_senses_added_to_a_language_model(tmp_path, backbone):
    base = AutoModelForCausalLM.from_config(BACKBONES[backbone]()).eval()
    base.save_pretrained(tmp_path)
    model, input_ids = BackpackForCausalLM.from_backbone(tmp_path, num_senses=4), torch.randint(1, 97, (2, 7))
    assert torch.equal(model(input_ids).logits, base(input_ids).logits)
    assert torch.equal(model.generate(input_ids, **GREEDY), base.generate(input_ids, **GREEDY))


@torch.no_grad()
def test_cache_by_either_name(model):
    input_ids = torch.randint(1, 97, (2, 7))
    whole = model(input_ids, use_cache=False).logits[:, -1:]
    for name in ("past_key_values", "cache"):
        for cache in (None, StaticCache(config=model.config, max_cache_len=12)):
            outputs = model(input_ids[:, :-1], use_cache=True, **{name: cache})
            last = model(input_ids[:, -1:], **{name: outputs.past_key_values})
            torch.testing.assert_close(last.logits, whole, rtol=0, atol=1e-5)


def test_training_and_saving(model, tmp_path):
    rows = torch.randint(1, 97, (8, 12)).tolist()
    data = Dataset.from_dict({"input_ids": rows, "labels": rows})
    arguments = TrainingArguments(
        tmp_path, max_steps=3, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, report_to="none"
    )
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < loss
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    trainer.save_model()
    again, info = BackpackForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    input_ids = torch.randint(1, 97, (2, 7))
    assert torch.equal(again.eval()(input_ids).logits, model.eval()(input_ids).logits)


def test_an_adaptation_ends_and_resumes(tmp_path):
    fields = {"eval_rows": 8, "eval_steps": 6, "save_strategy": "steps", "save_steps": 6}
    whole, again = (tiny_trainer(tmp_path / "run", **fields) for _ in range(2))
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
    assert whole.state.global_step == again.state.global_step == 12
    for name, parameter in again.model.state_dict().items():
        assert torch.equal(parameter, whole.model.state_dict()[name]), name
    assert {"train_runtime", "train_seconds"} <= set(whole.state.log_history[-1])


def test_released_folder_as_remote_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.modules['modeling_backpack'] = None\n{REMOTE}", RELEASED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["module"].startswith("transformers_modules.")
    assert result["new"][0] == result["new"][1] and result["text"].startswith("Pada tahun")
