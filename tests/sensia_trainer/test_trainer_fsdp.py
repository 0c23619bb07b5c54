"""An adaptation whose weights are sharded over two processes (FSDP) is the adaptation on one."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule

from sensia_trainer.commands.adapt import main
from sensia_trainer.training.parts import choose_parts
from sensia_trainer.training.settings import TrainedParts
from sensia_trainer.training.sharding import check_sharding
from sensia_trainer.utils.files import read_json
from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER
from tests.distributed import allow_fsdp_on_cpu, run_on_processes
from tests.tiny import KeepsRows, tiny_bitext, tiny_model, tiny_tokenizer, tiny_trainer, without_intervals


pytestmark = pytest.mark.distributed

RECIPE = RECIPES_FOLDER / "accelerate" / "several_nodes_fsdp.yaml"
CASES = {
    "whole": {},
    "chunks": {"contrastive_chunk_size": 2, "sense_pooling": "contextual", "polish_freeze": "none"},
    "accumulated": {"gradient_accumulation_steps": 2, "rows": 104, "w_sense": 0.0, "w_context": 0.0},
}


def adapt(folder, pairs, fields, resume_from=None):
    """Through all three phases, two epochs and two evaluations, with `pairs` pairs on this process."""
    trainer = tiny_trainer(
        folder,
        trainer_class=KeepsRows,
        per_device_train_batch_size=pairs,
        per_device_eval_batch_size=2,
        eval_rows=9,
        eval_steps=6,
        save_strategy="steps",
        save_steps=8,
        dropout=0.0,
        learning_rate=1e-3,
        **fields,
    )
    before = trainer.evaluate(metric_key_prefix="before")
    trainer.train(resume_from_checkpoint=resume_from)
    trainer.save_model(folder)
    kept = ("loss", "grad_norm", "eval_", "sense_")
    frozen = {id(parameter) for parameter in trainer.phase_callback.frozen}
    return {
        "before": before,
        "history": [{n: v for n, v in row.items() if n.startswith(kept)} for row in trainer.state.log_history[1:]],
        "frozen": [name for name, weight in trainer.model.named_parameters() if id(weight) in frozen],
        "sharded": [type(m).__name__ for m in trainer.model.modules() if isinstance(m, FSDPModule)],
        "rows": [row for batch in trainer.seen for row in batch],
    }


def adapt_sharded(folder):
    """Every case with the settings of the recipe, and the first once more from its checkpoint."""
    allow_fsdp_on_cpu()
    fsdp = {"fsdp": True, "fsdp_config": yaml.safe_load(RECIPE.read_text())["fsdp_config"]}
    results = {name: adapt(f"{folder}/{name}", 4, fsdp | fields) for name, fields in CASES.items()}
    results["resumed"] = adapt(f"{folder}/resumed", 4, fsdp, f"{folder}/whole/checkpoint-8")
    return results


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """The folder of the runs on two processes, and what each process saw."""
    folder = tmp_path_factory.mktemp("sharded")
    return folder, run_on_processes(adapt_sharded, str(folder))


def test_two_processes_with_sharded_weights_equal_one(tmp_path, sharded):
    folder, (first, second) = sharded
    for name, fields in CASES.items():
        expected = adapt(str(tmp_path / name), 8, fields)
        for rank in (first[name], second[name]):
            # Each of these gathers its own weights when it needs them; embedding and head are one weight.
            parts = ("ForCausalLM", "SenseNetwork", "SenseWeightNetwork")
            kinds = {f"FSDPBackpack{part}" for part in parts} | {"FSDPGPT2Block", "FSDPEmbedding", "FSDPLinear"}
            assert set(rank["sharded"]) == kinds
            assert rank["frozen"] == expected["frozen"]
            before, expected_before = (without_intervals(one["before"]) for one in (rank, expected))
            assert before == pytest.approx(expected_before, rel=1e-4)
            for row, expected_row in zip(rank["history"], expected["history"], strict=True):
                numbers, expected_numbers = without_intervals(row), without_intervals(expected_row)
                assert numbers == pytest.approx(expected_numbers, rel=1e-4, abs=1e-5), name
        assert bool(expected["frozen"]) == (fields.get("polish_freeze") != "none")
        assert sorted(first[name]["rows"] + second[name]["rows"]) == sorted(expected["rows"])
        assert [row["eval_pairs"] for row in first[name]["history"] if "eval_pairs" in row] == [9, 9]
        weights, expected_weights = (load_file(f / name / "model.safetensors") for f in (folder, tmp_path))
        assert weights.keys() == expected_weights.keys()
        for key, weight in expected_weights.items():
            torch.testing.assert_close(weights[key], weight, rtol=0, atol=1e-5, msg=f"{name}: {key}")


def test_sharded_runs_resume_exactly(sharded):
    folder, (first, _) = sharded
    whole, resumed = (load_file(folder / name / "model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    losses = [[row["loss"] for row in first[name]["history"] if "loss" in row] for name in ("whole", "resumed")]
    assert losses[0] == losses[1]


def refusals(folder):
    allow_fsdp_on_cpu()
    messages = []
    for fields in ({"polish_freeze": "vectors"}, {"fsdp_config": {"cpu_ram_efficient_loading": True}}):
        with pytest.raises(ValueError) as error:
            tiny_trainer(folder, fsdp=True, **fields)
        messages.append(str(error.value))
        AcceleratorState._reset_state()
    return messages


def test_what_cannot_be_sharded_is_refused(tmp_path):
    (vectors, loading), _ = run_on_processes(refusals, str(tmp_path))
    assert "`polish_freeze` is 'vectors'" in vectors and "'modules'" in vectors
    assert "`fsdp_cpu_ram_efficient_loading` is true" in loading and "to false" in loading
    with pytest.raises(ValueError, match="FSDP 1 wraps the model.*`fsdp_version: 2`"):  # which needs a device
        check_sharding(tiny_trainer(tmp_path).model, None, SimpleNamespace(fsdp_version=1))
    model = tiny_trainer(tmp_path).model
    choose_parts(model, TrainedParts(train="senses"), range(280, 284))
    with pytest.raises(ValueError, match="`train` names parts of the model.*Use DDP, or set `train` to 'all'"):
        check_sharding(model, None, SimpleNamespace(fsdp_version=2))


def test_an_old_accelerate_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sensia_trainer.training.sharding.SHARDS_FROM", "999.0")
    with pytest.raises(ValueError, match="FSDP wants accelerate 999.0 or newer"):
        check_sharding(tiny_trainer(tmp_path).model, None, SimpleNamespace(fsdp_version=2))


def adapt_by_command(folder):
    allow_fsdp_on_cpu()
    main([f"{folder}/recipe.yaml"])


@pytest.mark.slow
def test_the_command_ends_with_what_the_new_words_vote_for(tmp_path):
    tokenizer = tiny_tokenizer()
    for part in (tiny_model(tokenizer), tokenizer):
        part.save_pretrained(tmp_path / "base")
    lines = ["en\tid", *(f"{pair['en']}\t{pair['id']}" for pair in tiny_bitext(120)["translation"])]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    places = {"model": "base", "bitext": "pairs.tsv", "output_dir": "out"}
    recipe = {name: str(tmp_path / place) for name, place in places.items()}
    recipe |= dict(target_language="id", max_steps=4)
    recipe |= dict(held_out_pairs=9, vocabulary_size=12, per_device_train_batch_size=4, logging_steps=2, licence="CC0")
    recipe |= dict(eval_strategy="no", save_strategy="no", use_cpu=True, report_to="none", disable_tqdm=True)
    recipe |= dict(fsdp="full_shard", fsdp_config=yaml.safe_load(RECIPE.read_text())["fsdp_config"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    run_on_processes(adapt_by_command, str(tmp_path))
    words = read_json(tmp_path / "out" / "metrics.json")["vocabulary"]["words"]
    assert words and all(word["votes_before"] and word["votes_after"] for word in words)
