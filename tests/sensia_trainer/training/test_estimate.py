"""What a training costs, against models themselves and against numbers worked out by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.training.estimate import (
    LOGITS_BYTES,
    Batch,
    Sizes,
    Trained,
    average_batch,
    fewest_processes,
    induction_head_products,
    low_rank_updates,
    matrix_product_rate,
    parameters,
    sizes_of,
    trained_parameters,
    training_memory,
    training_operations,
)
from sensia_trainer.training.parts import choose_parts
from sensia_trainer.training.settings import TrainedParts


GPT2 = GPT2Config(vocab_size=700, n_embd=64, n_layer=3, n_head=4, n_positions=32)
LLAMA = LlamaConfig(
    vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=24,
    intermediate_size=96, tie_word_embeddings=False,
)  # fmt: skip
# d = 10, 2 layers, MLP 40, 100 words, 5 senses through an MLP of 20.
SMALL = Sizes(10, 2, 10, 10, 40, 2, 100, senses=5, sense_inner=20)


@pytest.mark.parametrize("backbone", [GPT2, LLAMA])
def test_counts_are_those_of_the_model(backbone):
    config = BackpackConfig(backbone_config=backbone, sense_intermediate_scale=2, residual_gate=backbone is LLAMA)
    config._attn_implementation = "eager"
    model = BackpackForCausalLM(config).eval()
    sizes = sizes_of(config)
    # All but biases and norms, whose weights have one dimension.
    assert parameters(sizes) == sum(p.numel() for p in model.parameters() if p.ndim > 1)
    # Three texts of one distinct token each: a token sees itself.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.tensor([[5], [6], [7]]), use_cache=False)
    batch = Batch(tokens=3, seen=3, distinct=3, labels=3)
    assert 3 * counter.get_total_flops() == training_operations(sizes, batch)


FROZEN_BACKBONE = Trained(backbone=False, words=False)


@pytest.mark.parametrize("trained", [Trained(), FROZEN_BACKBONE, Trained(backbone=False)])
def test_what_is_frozen_has_no_gradients_of_its_own(trained):
    config = BackpackConfig(backbone_config=GPT2, sense_intermediate_scale=2)
    config._attn_implementation = "eager"
    model = BackpackForCausalLM(config).eval().requires_grad_(False)
    parts = (model.backpack.backbone, trained.backbone), (model.get_input_embeddings(), trained.words)
    for module, learns in (*parts, (model.backpack.sense_network, True), (model.backpack.sense_weight_net, True)):
        module.requires_grad_(learns)
    positions = model.backpack.backbone.wpe.requires_grad_(trained.words)
    sizes = sizes_of(config)
    learn = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    assert trained_parameters(sizes, trained) == sum(p.numel() for p in learn) and positions.weight is not None
    with FlopCounterMode(display=False) as counter:
        model(torch.tensor([[5], [6], [7]]), use_cache=False).logits.sum().backward()
    batch = Batch(tokens=3, seen=3, distinct=3, labels=3)
    # The first matrix of the sense network passes nothing on where the words are frozen.
    assert counter.get_total_flops() == pytest.approx(training_operations(sizes, batch, trained=trained), rel=0.05)


def test_updates_of_low_rank_are_counted():
    pytest.importorskip("peft")
    config = BackpackConfig(backbone_config=LLAMA, sense_intermediate_scale=2)
    for senses in ("full", "lora"):
        model = BackpackForCausalLM(config)
        choose_parts(model, TrainedParts(train="lora", lora_r=4, lora_senses=senses))
        updates = low_rank_updates(sizes_of(config), 4, senses=senses == "lora")
        trained = Trained(backbone=False, words=False, senses=senses == "full", updates=updates)
        learn = sum(p.numel() for p in model.parameters() if p.requires_grad and p.ndim > 1)
        assert trained_parameters(sizes_of(config), trained) == learn


def test_operations_by_hand():
    # A block: 10 x (20 + 20 + 80) = 1,200 weights; senses: 800 + 200 + 1,000; sense weights: 2 x 10 x 10.
    assert parameters(SMALL) == 1000 + 2 * 1200 + 2000 + 200
    batch = Batch(tokens=7, seen=12, distinct=5, labels=3)
    products = 2 * (7 * 1200 + 12 * 20) + 5 * 2000 + 7 * 200 + 12 * (10 + 50)
    assert training_operations(SMALL, batch) == 2 * (3 * products + 3 * 3 * 10 * 100)
    assert training_operations(SMALL, batch, chunked=True) == 2 * (4 * products + 3 * 3 * 10 * 100)
    # Only the senses learn: blocks forward alone, nothing passed on to them; three products more with the head: the
    # base's, the mixture's and its gradient.
    products = 2 * (7 * 1200 + 12 * 20) + 3 * 5 * 2000 + 2 * 7 * 200 + 3 * 12 * (10 + 50)
    assert training_operations(SMALL, batch, trained=FROZEN_BACKBONE) == 2 * (products + 2 * 3 * 10 * 100)
    distilled = training_operations(SMALL, batch, trained=FROZEN_BACKBONE, head_products=3)
    assert distilled == 2 * (products + 5 * 3 * 10 * 100)
    assert (induction_head_products(0.0), induction_head_products(0.5)) == (1, 3)
    dense = SMALL._replace(senses=0, sense_inner=0)
    assert training_operations(dense, batch) == 6 * (2 * (7 * 1200 + 12 * 20) + 3 * 1000)


def test_memory_by_hand():
    batch = Batch(tokens=7, seen=12, distinct=5, labels=3)
    memory = training_memory(SMALL, batch)
    assert memory.states == 5600 * 16
    between, inside = 2 * 60, 2 * (20 + 20 + 80)  # 6 d; queries and what attention gives, keys and values, MLP
    rotated = 2 * (10 + 10)  # queries and keys, for lack of learned positions
    senses, in_float32 = 5 * (80 + 40 + 100) + 7 * 100, 5 * 60 + 7 * 40 + 4 * 5 * 12
    assert memory.activations == 4 * (7 * (between + inside + rotated) + senses + in_float32) + 2**28
    half = training_memory(SMALL, batch, half=True)
    assert half.states == 5600 * 18
    assert half.activations == 4 * (7 * (between + rotated) + in_float32) + 2 * (7 * inside + senses) + 2**28
    # The senses alone learn: 16 bytes each, the rest 4; no block keeps anything.
    frozen = training_memory(SMALL, batch, trained=FROZEN_BACKBONE)
    assert frozen.states == 2200 * 16 + 3400 * 4 and memory.activations - frozen.activations == 4 * 7 * (
        between + inside + rotated
    )
    # Sharded by FSDP: a quarter, and the largest part whole (the sense network) with its gradient.
    assert training_memory(SMALL, batch, half=True, processes=4).states == 5600 * 18 / 4 + 2000 * (2 + 4)
    # By tensor parallelism: half of each matrix, and of a block what lies inside it.
    split = training_memory(SMALL, batch, tensor_parallel=2)
    assert split.states == 5600 * 8
    assert memory.activations - split.activations == 4 * 7 * (inside + rotated) / 2


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "gpt2 in one kernel", "gpt_neox", "llama"])
def test_memory_is_what_autograd_keeps(kind, half):
    no_dropout = {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    wide = {"vocab_size": 300, "hidden_size": 96, "num_attention_heads": 6, "num_hidden_layers": 3}
    gpt2 = {"vocab_size": 300, "n_embd": 96, "n_head": 6, "n_layer": 3, "n_positions": 32, **no_dropout}
    backbone = {
        "gpt2": lambda: GPT2Config(**gpt2),
        "gpt2 in one kernel": lambda: GPT2Config(activation_function="gelu_pytorch_tanh", **gpt2),
        "gpt_neox": lambda: GPTNeoXConfig(intermediate_size=384, **wide),
        "llama": lambda: LlamaConfig(num_key_value_heads=2, intermediate_size=256, **wide),
    }[kind]()
    config = BackpackConfig(backbone_config=backbone, num_senses=4, sense_intermediate_scale=2)
    model = BackpackForCausalLM(config).train()
    ids = torch.randint(0, 300, (8, 24), generator=torch.Generator().manual_seed(0))
    kept, alive = {}, []

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        model.backpack(ids, use_cache=False)
    counted = sum(kept.values()) - sum(kept.get(p.untyped_storage().data_ptr(), 0) for p in model.parameters())
    batch = Batch(tokens=192, seen=8 * 24 * 25 / 2, distinct=len(ids.unique()), labels=0)
    formula = training_memory(sizes_of(config), batch, half=half).activations - LOGITS_BYTES
    assert 0.85 < formula / counted < 1.2


def test_batches_by_hand():
    batch = average_batch(10, 4, 6, vocabulary=1000)
    assert (batch.tokens, batch.labels) == (100, 60)
    assert batch.seen == 10 * ((1.5 * 16 + 4) / 2 + (1.5 * 36 + 6) / 2)
    assert batch.distinct == 100  # not more than there are
    assert average_batch(10, 4, 6, 1000, both_sides=True).labels == 100
    beside = average_batch(10, 4, 6, vocabulary=1000, texts=[(0.5, 8), (0.2, 5)])
    assert (beside.tokens, beside.labels) == (150, 110)
    assert beside.seen == pytest.approx(batch.seen + 5 * (1.5 * 64 + 8) / 2 + 2 * (1.5 * 25 + 5) / 2)
    assert average_batch(1000, 4, 6, vocabulary=10**6).distinct == pytest.approx(10 * 10**2.4)
    assert average_batch(10**6, 4, 6, vocabulary=1000).distinct == 1000


def test_as_many_processes_as_hold_it():
    batch = average_batch(64, 20, 20, SMALL.vocabulary)
    one = training_memory(SMALL, batch, half=True).total
    assert fewest_processes(SMALL, batch, room=one / 0.9)[0] == 1
    seven_billion = Sizes(4096, 32, 4096, 4096, 11008, 3, 32000, tied=False, senses=16, sense_inner=4096)
    processes, memory = fewest_processes(seven_billion, batch, room=80e9)
    assert processes == 4 and memory.total < 72e9
    assert fewest_processes(seven_billion, batch, room=1e9) is None


def test_a_rate_is_measured():
    assert matrix_product_rate(size=64, seconds=0.01) > 1e6
    assert matrix_product_rate(size=64, seconds=0.01, average=True) > 1e6
