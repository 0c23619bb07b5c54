import math

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.config import SensiaConfig
from sensia_trainer.induction import (
    GATE_BLOCKS,
    InductionTrainer,
    one_token_words,
    part_for_gate,
    sense_words,
    senses_of_distinct,
    widest,
    with_senses,
)
from sensia_trainer.trainer import SensiaTrainer
from sensia_trainer.training.distillation import distilled_loss
from sensia_trainer.training.settings import InductionConfig, InductionData
from tests.reference import induction as reference
from tests.tiny import tiny_bitext, tiny_tokenizer


VOCABULARY, BLOCK = 24, 10


def test_distinct_tokens_have_their_senses():
    ids = torch.tensor([[5, 2, 5], [2, 9, 2]])
    senses = ids[..., None, None].expand(2, 3, 4, 6).float()
    assert senses_of_distinct(ids, senses)[:, 0, 0].tolist() == [2, 5, 9]


def tiny_base(family="gpt2"):
    torch.manual_seed(0)
    if family == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
        dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes, **dropouts))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=False, **sizes))


def blocks(rows, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Dataset.from_dict({"input_ids": torch.randint(0, VOCABULARY, (rows, BLOCK), generator=draw).tolist()})


def trainer_for(folder, family="gpt2", model=None, **fields):
    model = model or BackpackForCausalLM.from_backbone(tiny_base(family), num_senses=4)
    settings = dict(output_dir=str(folder), max_steps=8, per_device_train_batch_size=4, learning_rate=0.01)
    settings |= dict(warmup_steps=0, logging_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True)
    args = InductionConfig(**settings | fields)
    return InductionTrainer(model, args, train_dataset=blocks(48), eval_dataset=blocks(6, seed=1))


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("gpt2", {}),
        ("llama", {}),
        ("llama", {"train_head": True, "distill_share": 0.0}),
        ("gpt2", {"train_backbone": True, "train_embeddings": True, "train_head": True, "distill_share": 0.0}),
    ],
)
def test_what_is_trained_moves_and_the_rest_stays(tmp_path, family, fields):
    trainer = trainer_for(tmp_path, family, **fields)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    senses = {name for name in before if any(part in name for part in ("sense", "residual_gate"))}
    assert senses <= trained and (trained == senses) == (not fields)
    assert any("lm_head" in name or "wte" in name for name in trained) == bool(fields.get("train_head"))
    trainer.train()
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, before[name]) == (name not in trained), name
    logged = [row for row in trainer.state.log_history if "diversity" in row]
    assert len(logged) == 8 and logged[0]["gate"] != 0 and logged[0]["contribution"] == 0 < logged[-1]["contribution"]
    if fields:  # another base than at the start
        assert not {"divergence", "base_cross_entropy"} & set(logged[0])
    else:
        assert logged[0]["divergence"] == pytest.approx(0, abs=1e-6)


def test_the_base_that_is_kept_has_no_dropout(tmp_path):
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    base = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes))
    assert base.config.resid_pdrop > 0
    trainer = trainer_for(tmp_path, model=BackpackForCausalLM.from_backbone(base, num_senses=4))
    inputs = {"input_ids": torch.tensor(blocks(4)["input_ids"][:])}
    trainer.model.train()
    first, second = (trainer.compute_loss(trainer.model, inputs, return_outputs=True)[1] for _ in range(2))
    assert torch.equal(first.backbone_last_hidden_state, second.backbone_last_hidden_state)
    assert not torch.equal(first.senses, second.senses)  # which are trained, with the dropout of their network


def test_a_closed_gate_measures_the_base(tmp_path):
    base = tiny_base().eval()
    trainer = trainer_for(tmp_path)
    closed = trainer.evaluate()
    ids = torch.tensor(trainer.eval_dataset["input_ids"])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(base(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert (
        closed["eval_perplexity"] == closed["eval_base_perplexity"] == pytest.approx(expected.exp().item(), rel=1e-5)
    )
    assert closed["eval_gate"] == closed["eval_contribution"] == 0
    assert closed["eval_divergence"] == pytest.approx(0, abs=1e-6)
    assert 0 < closed["eval_sense_entropy"] <= math.log(4) + 1e-5
    trainer.train()
    opened = trainer.evaluate()
    assert opened["eval_base_perplexity"] == pytest.approx(closed["eval_base_perplexity"], rel=1e-6)
    assert opened["eval_perplexity"] != opened["eval_base_perplexity"] and opened["eval_contribution"] > 0


def test_the_head_multiplies_in_the_precision_of_the_run(tmp_path, monkeypatch):
    seen = []

    def watched(*args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        return distilled_loss(*args, **kwargs)

    monkeypatch.setattr("sensia_trainer.induction.distilled_loss", watched)
    trainer = trainer_for(tmp_path, bf16=True, max_steps=1)
    trainer.evaluate()
    before = len(seen)
    trainer.train()
    assert 0 < before < len(seen) and all(seen)


@pytest.mark.parametrize("start", [0.01, 0.3, 0.99, -0.3])
def test_the_widest_is_where_the_loss_is_that_of_zero(start):
    """A parabola with its lowest point at 0.5 is as high at 1 as at 0."""
    lowest = math.copysign(0.5, start)
    found = widest(lambda x: (x - lowest) ** 2, start)
    assert abs(found) == pytest.approx(1.0, rel=2**-7) and abs(found) <= 1.0 and found * start > 0


@pytest.mark.parametrize("start", [1.2, 3.0, 40.0])
def test_too_wide_a_start_is_closed_until_it_does_no_harm(start):
    found = widest(lambda x: (x - 0.5) ** 2, start)
    assert 0.97 < found <= 1.0


@pytest.mark.parametrize("start", [0.0, -0.3])
def test_where_zero_is_better_the_start_stays(start):
    assert widest(lambda x: (x - 0.5) ** 2, start) == start


def test_nothing_is_tried_without_end():
    tried = []
    assert widest(lambda x: tried.append(x) or 0.0, 1.0) == 1024 == max(tried) and len(tried) < 30
    tried.clear()
    assert widest(lambda x: tried.append(x) or float(x > 0), 1.0) == 1 and min(tried[1:]) == 2**-10


def test_the_gate_is_opened_as_far_as_text_is_predicted_no_worse(tmp_path):
    """By the model itself, in float64: the loss there is at most that of the base, and a little further it is more."""
    trainer = trainer_for(tmp_path, max_steps=40)
    trainer.train()
    gate = trainer.model.backpack.residual_gate.weight
    trained = gate.item()
    assert trainer.open_gate() == pytest.approx(trained) and gate.item() / trained > 1
    ids = torch.tensor(trainer.train_dataset[:GATE_BLOCKS]["input_ids"])
    model = trainer.model.double().eval()

    def loss(value):
        with torch.no_grad():
            gate.fill_(value)
            logits = model(input_ids=ids).logits
        return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))

    opened = gate.item()
    closed = loss(0.0)
    assert loss(opened) <= closed + 1e-6 and loss(1.02 * opened) > closed
    with torch.no_grad():
        gate.fill_(2 * opened)
    trainer.model.float()
    assert trainer.open_gate() == pytest.approx(2 * opened)
    assert 0.97 * opened < gate.item() < 1.01 * opened  # closed again


def test_blocks_of_their_own_open_the_gate(tmp_path):
    """What is kept apart is neither trained nor measured on, and only it is asked."""
    train, kept = part_for_gate(blocks(120))
    assert len(train) == 118 and train["input_ids"][:] + kept["input_ids"][:] == blocks(120)["input_ids"][:]
    assert len(part_for_gate(blocks(2000))[1]) == GATE_BLOCKS
    alone, none = part_for_gate(blocks(49))
    assert len(alone) == 49 and none is None
    trainer = trainer_for(tmp_path, max_steps=40)
    trainer.train()
    gate, asked = trainer.model.backpack.residual_gate.weight, []
    trained = gate.item()
    trainer.get_eval_dataloader = lambda rows: asked.append(rows) or [{"input_ids": torch.tensor(rows["input_ids"])}]
    trainer.open_gate(kept)
    other = gate.item()
    gate.data.fill_(trained)
    trainer.open_gate()
    assert asked[0] is kept and len(asked[1]) == GATE_BLOCKS and gate.item() != other


def test_the_gate_has_a_rate_of_its_own_and_no_decay(tmp_path):
    trainer = trainer_for(tmp_path, gate_learning_rate=0.5, weight_decay=0.3)
    groups = trainer.create_optimizer().param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0, 0.0]
    assert [group["lr"] for group in groups] == [0.01, 0.01, 0.5]
    assert groups[2]["params"] == [trainer.model.backpack.residual_gate.weight]
    assert trainer_for(tmp_path).args.gate_learning_rate == pytest.approx(0.1)


def test_a_gate_that_does_harm_at_any_opening_is_told(tmp_path, monkeypatch, caplog):
    trainer = trainer_for(tmp_path)
    with torch.no_grad():
        trainer.model.backpack.residual_gate.weight.fill_(0.3)
    closed = []  # the states of a closed gate, which are asked for first

    def harmful(states, *_):
        closed.append(states)
        return (states - closed[0]).square().mean()

    monkeypatch.setattr("sensia_trainer.induction.next_token_loss", harmful)
    monkeypatch.setattr("sensia_trainer.induction.GATE_BLOCKS", 2)  # one batch
    with caplog.at_level("WARNING"):
        assert trainer.open_gate() == pytest.approx(0.3)
    assert "predicted worse at any opening of the gate; it stays at 0.3000: train for longer" in caplog.text


def test_words_of_a_tokenizer_that_marks_every_text():
    """As Llama 2's: a space before a word makes a token of its own there."""
    vocab = {"<unk>": 0, "▁": 1} | {letter: n for n, letter in enumerate("abdnt", 2)}
    merges = [("▁", "b"), ("▁b", "a"), ("▁ba", "n"), ("▁ba", "t")]
    vocab |= {"".join(pair): len(vocab) + n for n, pair in enumerate(merges)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    marked = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert marked.tokenize(" ban") == ["▁", "▁ban"]
    assert one_token_words(marked, ["ban", "bat", "bad"]) == {"ban": vocab["▁ban"], "bat": vocab["▁bat"]}


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path):
    whole = trainer_for(tmp_path / "whole", save_strategy="steps", save_steps=4)
    whole.train()
    again = trainer_for(tmp_path / "again", save_strategy="steps", save_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    for (name, value), other in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_a_stuck_gate_is_told(tmp_path, caplog):
    trainer = trainer_for(tmp_path, gate_learning_rate=1e-9)
    with caplog.at_level("WARNING"):
        trainer.train()
    assert "raise `gate_learning_rate`" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"distill_share": 1.5}, "`distill_share` is 1.5"),
        ({"distill_share": math.nan}, "`distill_share` is nan"),
        ({"diversity_weight": -1.0}, "`diversity_weight` is -1.0"),
        ({"distill_temperature": 0.0}, "`distill_temperature` is 0.0"),
        ({"gate_learning_rate": 0.0}, "`gate_learning_rate` is 0.0"),
        ({"train_backbone": True}, "`train_backbone` changes the base that `distill_share` distils from"),
        ({"train_embeddings": True}, "`train_embeddings` changes the base that `distill_share` distils from"),
        ({"label_smoothing_factor": 0.5}, "`label_smoothing_factor` is 0.5, but only adaptation"),
        ({"train_head": True}, "`train_head` changes the base that `distill_share` distils from"),
        (
            {"dataloader_persistent_workers": True, "dataloader_num_workers": 1},
            "`dataloader_persistent_workers` is true, but .* `open_gate`",
        ),
        ({"num_train_epochs": 1}, "`num_train_epochs` is 1, but `max_steps` is 40000 and goes first"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        InductionConfig(output_dir=str(tmp_path), use_cpu=True, **fields)


def test_models_that_cannot_be_induced_are_refused(tmp_path, tiny_model):
    with pytest.raises(ValueError, match="has no residual gate"):
        trainer_for(tmp_path, model=tiny_model())
    with pytest.raises(ValueError, match="has no residual gate"):
        trainer_for(tmp_path, model=tiny_base())
    with pytest.raises(ValueError, match="the head of this model is its word embeddings; set both alike"):
        trainer_for(tmp_path, train_head=True, distill_share=0.0)
    with pytest.raises(ValueError, match="`residual_gate` in `backpack_config` is false"):
        InductionData(model="m", text_files=["a"], backpack_config={"residual_gate": False})
    assert InductionData(model="m", text_files=["a"], backpack_config=None).backpack_config == {}
    tiny_base().save_pretrained(tmp_path / "dense")
    with pytest.raises(ValueError, match=r"No senses for `model`='.*dense': .*num_senses"):
        with_senses(str(tmp_path / "dense"), num_senses=999)


def test_senses_that_were_begun_keep_their_fields(tmp_path):
    BackpackForCausalLM.from_backbone(tiny_base(), num_senses=4).save_pretrained(tmp_path)
    assert with_senses(str(tmp_path)).config.num_senses == 4
    assert with_senses(str(tmp_path), num_senses=4).config.residual_gate
    with pytest.raises(ValueError, match="`backpack_config` is {'num_senses': 8}, but .* has senses already with"):
        with_senses(str(tmp_path), num_senses=8)


def test_a_base_that_is_trained_is_told_as_it_was(tmp_path):
    parts = {"train_backbone": True, "train_embeddings": True, "train_head": True, "distill_share": 0.0}
    trainer = trainer_for(tmp_path, **parts)
    before = trainer.evaluate(metric_key_prefix="before")
    trainer.remember_base(before, "before_")
    assert before["before_divergence"] is None
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_base_perplexity"] == before["before_base_perplexity"] and after["eval_divergence"] is None
    frozen = trainer_for(tmp_path)
    frozen.remember_base(before, "before_")
    assert frozen.evaluate()["eval_divergence"] == pytest.approx(0, abs=1e-6)


def test_words_of_one_token(tokenizer):
    ids = one_token_words(tokenizer, ["cat", "the", "improbable"])
    assert "the" in ids and "improbable" not in ids
    assert all(tokenizer.decode([token]) == f" {word}" for word, token in ids.items())


def test_what_senses_speak_for_beyond_what_they_say_of_every_word(tokenizer):
    """The reference's loops in float64; and the mean over the words is what they all say."""
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    model = BackpackForCausalLM.from_backbone(
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)), num_senses=4
    )
    frequent = torch.randperm(len(tokenizer))[:40]
    found = sense_words(model, tokenizer, frequent, words=["the", "improbable"], top_k=3)
    ((word, token),) = one_token_words(tokenizer, ["the"]).items()
    senses = model.get_senses(torch.arange(len(tokenizer))).detach().double().numpy()
    head = model.get_output_embeddings().weight.detach().double().numpy()
    share, nearest = reference.own_words(senses, head, frequent.tolist(), token, 3)
    assert found["common_share"] == pytest.approx(share, rel=1e-6) and 0 < share < 1
    assert found["words"] == [
        {"word": word, "senses": [[tokenizer.decode([i]).strip() for i in sense] for sense in nearest]}
    ]
    everyone = sense_words(model, tokenizer, torch.full((5,), token), words=["the"])
    assert everyone["common_share"] == pytest.approx(1.0)


@pytest.mark.parametrize("context_state", ["mixture", "combined"])
def test_an_induced_model_is_adapted_like_a_backpack(tmp_path, context_state):
    """All three losses reach the sense path and the backbone; in polish the senses freeze and the rest goes on."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}
    base = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    model = BackpackForCausalLM.from_backbone(base, num_senses=4)
    with torch.no_grad():
        model.backpack.residual_gate.weight.fill_(0.5)
    settings = dict(output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=8, learning_rate=0.01)
    settings |= dict(warmup_steps=0, logging_steps=1, save_strategy="no", disable_tqdm=True, use_cpu=True)
    args = SensiaConfig(**settings, context_state=context_state)
    data = dict(train_dataset=tiny_bitext(48), eval_dataset=tiny_bitext(8, seed=1))
    trainer = SensiaTrainer(model, args, processing_class=tokenizer, **data)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer.train()
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    metrics = trainer.evaluate()
    assert all(math.isfinite(value) for value in metrics.values() if isinstance(value, float))
    logged = [row for row in trainer.state.log_history if "loss_sense" in row]
    assert len(logged) == 6 and all(math.isfinite(row["loss_context"]) for row in logged)


def test_the_senses_alone_predict_the_next_word(tmp_path):
    """w_mixture CE(head(m)) is what that term adds to the loss, and to what the senses learn from."""
    model = BackpackForCausalLM.from_backbone(tiny_base(), num_senses=4)
    with torch.no_grad():
        model.backpack.residual_gate.weight.fill_(0.3)
    batch = {"input_ids": torch.tensor(blocks(3)["input_ids"][:])}
    losses, gradients = [], []
    for weight in (0.0, 0.5):
        trainer = trainer_for(tmp_path, model=model, mixture_weight=weight)
        losses.append(trainer.compute_loss(model, batch))
        model.zero_grad()
        losses[-1].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.backpack.sense_network.parameters()]))
    outputs = model(**batch, output_senses=True)
    logits = model.get_output_embeddings()(outputs.mixture)[:, :-1].flatten(0, 1)
    expected = 0.5 * torch.nn.functional.cross_entropy(logits, batch["input_ids"][:, 1:].flatten())
    torch.testing.assert_close(losses[1] - losses[0], expected)
    assert not torch.equal(*gradients)
    metrics = trainer.evaluate()
    assert metrics["eval_mixture_cross_entropy"] > 0
