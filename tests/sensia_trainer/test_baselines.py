"""Baselines without senses: their loss from the plain formulas, what moves, and that they see the same batches."""

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from sensia_trainer.baselines import DenseTrainer
from sensia_trainer.config import METHODS, PRESETS, SensiaConfig
from sensia_trainer.training.settings import AdaptationData
from sensia_trainer.utils.arguments import recipe_parser
from sensia_trainer.utils.recipes import RECIPES as RECIPES_FOLDER
from sensia_trainer.utils.recipes import parse_recipe
from sensia_trainer.vocabulary.settings import VocabularySettings
from tests.distributed import allow_fsdp_on_cpu, run_on_processes
from tests.reference import losses as reference
from tests.tiny import tiny_bitext, tiny_tokenizer, tiny_trainer


RECIPE = RECIPES_FOLDER / "accelerate" / "several_nodes_fsdp.yaml"


def dense_trainer(folder, eval_rows=0, tied=True, **fields):
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes = dict(n_embd=16, n_layer=2, n_head=2, n_positions=40, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), tie_word_embeddings=tied, **sizes))
    settings = dict(output_dir=str(folder), max_steps=12, per_device_train_batch_size=8, learning_rate=0.01)
    settings |= dict(warmup_steps=0, logging_steps=1, eval_strategy="no", save_strategy="no", disable_tqdm=True)
    return DenseTrainer(
        model,
        SensiaConfig(**settings | dict(use_cpu=True) | fields),
        train_dataset=tiny_bitext(),
        eval_dataset=tiny_bitext(eval_rows, seed=1) if eval_rows else None,
        processing_class=tokenizer,
    )


def test_logits_that_the_head_does_not_make_are_refused(tmp_path):
    class Shifted(GPT2LMHeadModel):
        def forward(self, *args, **kwargs):
            outputs = super().forward(*args, **kwargs)
            outputs.logits = outputs.logits + torch.arange(8)
            return outputs

    settings = dict(use_cpu=True, output_dir=str(tmp_path), **METHODS["fine-tuning"])
    model = Shifted(GPT2Config(vocab_size=8, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="logits of Shifted"):
        DenseTrainer(model, SensiaConfig(**settings), processing_class=tiny_tokenizer())


def test_methods_are_defaults():
    mcl = SensiaConfig(output_dir="x", use_cpu=True, **METHODS["mcl"])
    assert (mcl.tau_context, mcl.context_layer, mcl.symmetric) == (0.05, 1, False)
    assert mcl.phase_state(0.1)[1:4] == mcl.phase_state(0.9)[1:4] == (0.0, 1.0, 1.5)
    control = SensiaConfig(output_dir="x", use_cpu=True, **METHODS["lm-only"])
    assert control.phase_state(0.3)[1:4] == (0.0, 0.0, 1.0) and control.polish_freeze == "none"
    assert METHODS["sensia"] == {}


def test_what_is_given_goes_before_what_a_method_brings(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: base\nbitext: pairs.tsv\nmethod: mcl\nuse_cpu: true\nsymmetric: true\noutput_dir: x\n")

    def parse(*options):
        parser = recipe_parser((AdaptationData, SensiaConfig))
        return parse_recipe(parser, [str(recipe), *options], presets=PRESETS)

    data, args = parse()
    assert data.method == "mcl" and args.symmetric is True
    assert (args.w_sense, args.w_context, args.context_layer) == (0.0, 1.0, 1)
    data, args = parse("--method", "lm-only", "--w_lm", "0.02")
    assert (args.w_context, args.w_lm, args.context_layer, args.polish_freeze) == (0.0, 0.02, None, "none")
    # A default that was typed is kept too.
    assert parse("--w_context", "0.3", "--polish_freeze", "modules")[1].polish_freeze == "modules"
    with pytest.raises(ValueError, match="`method` is 'simcse'"):
        parse("--method", "simcse")


@pytest.mark.parametrize("place", ["command line", "recipe above", "recipe beneath"])
def test_a_method_goes_before_the_recipe_that_it_is_named_over(tmp_path, place):
    """What `adapt` says of temperatures and negatives is for SENSIA, not for dense alignment as it was published."""
    above = "based_on: adapt\nmodel: base\nbitext: pairs.tsv\ntarget_language: id\nuse_cpu: true\noutput_dir: x\n"
    if place != "command line":
        above += "method: mcl\n"
    (tmp_path / "mine.yaml").write_text(above)
    (tmp_path / "over.yaml").write_text("based_on: mine\nmethod: sensia\nsymmetric: false\n")

    def parse(name, *options):
        parser = recipe_parser((AdaptationData, VocabularySettings, SensiaConfig))
        return parse_recipe(parser, [str(tmp_path / name), *options], presets=PRESETS)[2]

    args = parse("mine.yaml", *(["--method", "mcl"] if place == "command line" else []))
    if place == "recipe beneath":  # SENSIA again: nothing of the other method is left
        args = parse("over.yaml")
        assert (args.tau_context, args.hard_negative_weight, args.w_sense, args.symmetric) == (0.1, 1.0, None, False)
        return
    assert (args.tau_context, args.hard_negative_weight, args.w_sense, args.symmetric) == (0.05, 0.0, 0.0, False)
    assert (args.source_lm_weight, args.polish_freeze) == (1.0, "none")  # the recipe's
    beside = ["--method", "mcl", "--tau_context", "0.2"]
    assert parse("mine.yaml", *beside).tau_context == 0.2


@pytest.mark.parametrize(("layer", "packed"), [(0, True), (1, False), (2, True), (None, True), (None, False)])
def test_mcl_from_the_formulas(tmp_path, layer, packed):
    """1.0 InfoNCE (one direction, last token after a block, temperature 0.05) + 1.5 cross-entropy, in float64."""
    trainer = dense_trainer(tmp_path, **METHODS["mcl"] | {"context_layer": layer})
    model = trainer.model.double()
    trainer.current_gradient_accumulation_steps = 1
    trainer.state.max_steps, trainer.state.global_step = 12, 3
    assert trainer.data_collator.share_rows
    trainer.data_collator.share_rows = packed
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    vectors, log_likelihoods = {"source": [], "target": []}, []
    for side, rows in vectors.items():
        for row in range(6):
            ids = batch["input_ids"][batch["sentences"] == row + (side == "target") * 6][None]
            out = model(ids, output_hidden_states=True)
            state = out.hidden_states[-1 if layer is None else layer]
            rows.append(F.normalize(state[0, -1].detach(), dim=0).tolist())
            if side == "target":
                targets = torch.cat([ids[0, 1:], torch.tensor([trainer.processing_class.eos_token_id])])
                scores = out.logits[0].detach().log_softmax(-1)
                log_likelihoods += (0.95 * scores.gather(1, targets[:, None])[:, 0] + 0.05 * scores.mean(-1)).tolist()
    expected = reference.info_nce(vectors["source"], vectors["target"], 0.05, symmetric=False)
    expected += 1.5 * -sum(log_likelihoods) / len(log_likelihoods)
    assert trainer.compute_loss(model, batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", ["fine-tuning", "mcl"])
def test_every_parameter_moves_and_results_are_measured(tmp_path, method):
    trainer = dense_trainer(tmp_path, eval_rows=8, **METHODS[method])
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    assert not [name for name, parameter in trainer.model.named_parameters() if torch.equal(before[name], parameter)]
    logged = trainer.state.log_history[-2]
    assert ("loss_context" in logged) == (method == "mcl") and "loss_lm" in logged
    metrics = trainer.evaluate()
    assert 0 <= metrics["eval_context_recall_source_to_target"] <= 1 and metrics["eval_target_perplexity"] > 1
    assert not any("sense" in key for key in metrics)


def test_batches_are_those_of_sensia(tmp_path):
    ours, baseline = tiny_trainer(tmp_path / "a"), dense_trainer(tmp_path / "b", **METHODS["mcl"])
    for one, other in zip(ours.get_train_dataloader(), baseline.get_train_dataloader(), strict=True):
        assert torch.equal(one["rows"], other["rows"])


def test_the_cached_gradients_are_the_direct_ones(tmp_path):
    weights = []
    for name, chunk in (("whole", 0), ("parts", 3)):
        fields = dict(contrastive_chunk_size=chunk, max_steps=1, optim="sgd", max_grad_norm=0.0)
        trainer = dense_trainer(tmp_path / name, **METHODS["mcl"], **fields)
        trainer.train()
        weights.append({n: p.detach().clone() for n, p in trainer.model.named_parameters()})
    for name, direct in weights[0].items():
        torch.testing.assert_close(weights[1][name], direct, atol=1e-5, rtol=1e-4)


def adapt(folder, pairs, **fields):
    """Both methods for some steps, one with parts of a batch, with `pairs` pairs on this process: what was logged."""
    fields |= dict(per_device_train_batch_size=pairs, max_steps=6, learning_rate=1e-3, eval_rows=9)
    logged = {}
    for method, chunk, tied in (("mcl", 2, True), ("fine-tuning", 0, False)):
        settings = fields | METHODS[method] | dict(contrastive_chunk_size=chunk, tied=tied)
        trainer = dense_trainer(f"{folder}/{method}", eval_strategy="steps", eval_steps=3, **settings)
        trainer.evaluate()
        trainer.train()
        trainer.save_model(f"{folder}/{method}")
        kept = ("loss", "grad_norm", "eval_")
        logged[method] = [{k: v for k, v in row.items() if k.startswith(kept)} for row in trainer.state.log_history]
    return logged


def adapt_sharded(folder, pairs):
    allow_fsdp_on_cpu()
    return adapt(folder, pairs, fsdp=True, fsdp_config=yaml.safe_load(RECIPE.read_text())["fsdp_config"])


@pytest.mark.distributed
@pytest.mark.parametrize("function", [adapt, adapt_sharded])
def test_two_processes_equal_one(tmp_path, function):
    ranks, expected = run_on_processes(function, str(tmp_path / "two"), 4), adapt(tmp_path / "one", 8)
    for method, rows in expected.items():
        for rank in ranks:
            for row, expected_row in zip(rank[method], rows, strict=True):
                assert row == pytest.approx(expected_row, rel=1e-4, abs=1e-5), method
        folders = (tmp_path / name / method for name in ("two", "one"))
        weights, expected_weights = (load_file(folder / "model.safetensors") for folder in folders)
        assert weights.keys() == expected_weights.keys()
        for name, weight in expected_weights.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-5)


def test_no_senses_to_align(tmp_path):
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no senses"):
        dense_trainer(tmp_path)
    with pytest.raises(ValueError, match="the model has 2 blocks"):
        dense_trainer(tmp_path, **METHODS["mcl"] | {"context_layer": 3}).train()
