"""A delta and its base are the model again, within the precision of what is stored; another base is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from modeling_backpack import BackpackForCausalLM
from sensia_trainer.commands.delta import main
from sensia_trainer.hub import delta
from sensia_trainer.hub.delta import make_delta
from sensia_trainer.hub.model_card import model_facts
from sensia_trainer.hub.publishing import _card_of, publish
from sensia_trainer.hub.release import refresh
from sensia_trainer.training.parts import choose_parts, merge_updates
from sensia_trainer.training.settings import TrainedParts
from sensia_trainer.utils.files import DELTA_FILE, DELTA_WEIGHTS
from sensia_trainer.vocabulary.extension import words_added
from tests.tiny import tiny_tokenizer


ROOT = Path(__file__).resolve().parents[3]
IDS = torch.tensor([[1, 2, 3, 281, 4, 279]])


def dense(seed, tied=True):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=len(tiny_tokenizer()), n_embd=32, n_layer=2, n_head=2, n_positions=40)
    return GPT2LMHeadModel(GPT2Config(**sizes, tie_word_embeddings=tied))


@pytest.fixture(scope="module", params=[True, False], ids=["tied head", "head of its own"])
def folders(request, tmp_path_factory):
    """A base, and beside it the base with senses, two new words, low-rank updates and one bias changed in full."""
    pytest.importorskip("peft", reason="peft is not installed")
    root, base = tmp_path_factory.mktemp("delta"), dense(0, request.param)
    base.save_pretrained(root / "base")
    model = BackpackForCausalLM.from_backbone(base, num_senses=4)
    model.resize_token_embeddings(len(tiny_tokenizer()) + 2, mean_resizing=False)
    choose_parts(model, TrainedParts(train="lora", lora_r=2))
    with torch.no_grad():
        model.backpack.residual_gate.weight.fill_(0.3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        merge_updates(model).backpack.backbone.ln_f.bias += 0.5
    model.save_pretrained(root / "adapted")
    tokenizer = tiny_tokenizer()
    for name in ("base", "adapted"):
        tokenizer.save_pretrained(root / name)
    (root / "base" / "README.md").write_text("---\nlicense: mit\n---\n\n# Base\n\nA small\nmodel of ours.\n")
    (root / "adapted" / "README.md").write_text("# A model\n\n## Use\n\nAs any other.\n")
    (root / "adapted" / "metrics.json").write_text(json.dumps({"config": {"sense_pooling": "mixture"}}))
    main([str(root / "adapted"), str(root / "base"), str(root / "delta")])
    return root


def test_a_delta_holds_what_changed_in_half_precision(folders):
    parts = load_file(folders / "delta" / DELTA_WEIGHTS)
    kinds = {key.split(":")[1]: key.split(":")[0] for key in parts}
    assert kinds["backpack.backbone.ln_f.bias"] == "difference"
    assert kinds["backpack.backbone.wte.weight"] == "rows" and len(parts["rows:backpack.backbone.wte.weight"]) == 2
    assert parts["left:backpack.backbone.h.1.mlp.c_fc.weight"].shape == (32, 2)
    assert {kinds[name] for name in kinds if "sense" in name} == {"whole"}
    assert "backpack.backbone.ln_f.weight" not in kinds
    assert {part.dtype for part in parts.values() if part.numel() > 1} == {torch.float16}
    assert not list((folders / "delta").glob("model*.safetensors"))
    card = (folders / "delta" / "README.md").read_text()
    assert card.index("## A delta") < card.index("## Use") and "sensia delta" in card
    assert "base` (A small model of ours.)" in card


def test_put_together_it_is_the_model(folders, tmp_path, capsys):
    main([str(folders / "delta"), str(folders / "base"), str(tmp_path / "again")])
    assert "model folder" in capsys.readouterr().out
    adapted, again = (
        BackpackForCausalLM.from_pretrained(path).eval() for path in (folders / "adapted", tmp_path / "again")
    )
    expected, got = adapted(IDS).logits, again(IDS).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-3 * expected.abs().max().item())
    base = dense(0, adapted.config.tie_word_embeddings)
    assert not torch.allclose(got[..., : base.config.vocab_size], base(IDS.clamp_max(278)).logits, atol=1e-2)
    # The rows of old words are the base's to the bit, and the folder is one like any other.
    wte = again.get_input_embeddings().weight
    assert torch.equal(wte[: base.config.vocab_size], base.get_input_embeddings().weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "again")("sun").input_ids == tiny_tokenizer()("sun").input_ids
    remote = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert torch.equal(remote.eval()(IDS).logits, got)
    assert (tmp_path / "again" / "README.md").read_text() == (folders / "adapted" / "README.md").read_text()


def test_what_is_refused(folders, tmp_path):
    tied = BackpackForCausalLM.from_pretrained(folders / "adapted").config.tie_word_embeddings
    dense(1, tied).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="is not the model that .* is a delta of"):
        main([str(folders / "delta"), str(tmp_path / "other"), str(tmp_path / "again")])
    with pytest.raises(ValueError, match="exists already"):
        main([str(folders / "delta"), str(folders / "base"), str(folders / "adapted")])
    GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=16, n_layer=2, n_head=2)).save_pretrained(tmp_path / "smaller")
    with pytest.raises(ValueError, match="was not made of this base"):
        make_delta(folders / "adapted", tmp_path / "smaller", tmp_path / "delta")
    with pytest.raises(ValueError, match="has the very weights of its base.*no delta to keep"):
        make_delta(folders / "adapted", folders / "adapted", tmp_path / "again")
    assert not list(tmp_path.glob("writing-*")) and not (tmp_path / "again").exists()


@pytest.mark.parametrize("of_a_matrix", [True, False])
def test_a_model_that_is_broken_has_no_delta(folders, tmp_path, of_a_matrix):
    model = BackpackForCausalLM.from_pretrained(folders / "adapted")
    weights = [weight for weight in model.state_dict().values() if (weight.ndim == 2) == of_a_matrix]
    weights[0].view(-1)[0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        make_delta(tmp_path / "broken", folders / "base", tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


def test_how_sentences_become_vectors_goes_along_without_the_metrics_of_a_run(folders, tmp_path):
    shutil.copytree(folders / "adapted", tmp_path / "adapted")
    (tmp_path / "adapted" / "metrics.json").unlink()
    own = {"pooling": "contextual", "temperature": 0.3}
    (tmp_path / "adapted" / "sentence_backpack.json").write_text(json.dumps(own))
    main([str(tmp_path / "adapted"), str(folders / "base"), str(tmp_path / "delta")])
    main([str(tmp_path / "delta"), str(folders / "base"), str(tmp_path / "whole")])
    for name in ("delta", "whole"):
        assert json.loads((tmp_path / name / "sentence_backpack.json").read_text()) == own


def test_a_damaged_delta_is_refused(folders, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in (folders / "delta").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / DELTA_WEIGHTS).write_bytes((damaged / DELTA_WEIGHTS).read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{DELTA_WEIGHTS} is damaged"):
        main([str(damaged), str(folders / "base"), str(tmp_path / "again")])
    (damaged / DELTA_FILE).write_text("{")
    with pytest.raises(ValueError, match=DELTA_FILE):
        main([str(damaged), str(folders / "base"), str(tmp_path / "again")])


def test_large_weights_are_shared_out_among_files(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(delta, "FILE_SIZE", 700)  # of which the largest weight takes several
    main([str(folders / "adapted"), str(folders / "base"), str(tmp_path / "delta")])
    files = list((tmp_path / "delta").glob("*.safetensors"))
    assert len(files) > 3 and max(sum(part.nbytes for part in load_file(file).values()) for file in files) <= 700
    main([str(tmp_path / "delta"), str(folders / "base"), str(tmp_path / "again")])
    main([str(folders / "delta"), str(folders / "base"), str(tmp_path / "of one file")])
    shared, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("again", "of one file"))
    assert shared.keys() == whole.keys() and all(torch.equal(shared[name], whole[name]) for name in whole)

    files[0].unlink()
    with pytest.raises(ValueError, match=f"{files[0].name} is damaged or missing"):
        main([str(tmp_path / "delta"), str(folders / "base"), str(tmp_path / "not whole")])
    assert not (tmp_path / "not whole").exists()


def test_the_delta_of_an_adapter_folder_is_that_of_the_whole_model(folders, tmp_path):
    peft = pytest.importorskip("peft")
    base = BackpackForCausalLM.from_pretrained(folders / "adapted")
    updated = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    with torch.no_grad():
        for name, parameter in updated.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    updated.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    expected = updated.eval()(IDS).logits
    main([str(tmp_path / "adapter"), str(folders / "adapted"), str(tmp_path / "delta")])
    facts = json.loads((tmp_path / "delta" / "delta.json").read_text())["model"]
    assert facts == model_facts(folders / "adapted") | {"Stored as": "F32"}
    main([str(tmp_path / "delta"), str(folders / "adapted"), str(tmp_path / "again")])
    got = BackpackForCausalLM.from_pretrained(tmp_path / "again").eval()(IDS).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-3 * expected.abs().max().item())


def test_the_card_of_a_delta_is_rendered_again(folders, tmp_path):
    adapted = shutil.copytree(folders / "adapted", tmp_path / "adapted")
    shutil.copy(ROOT / "model_cards" / "backpack-micro-sensia-id" / "metrics.json", adapted)
    refresh(adapted)
    main([str(adapted), str(folders / "base"), str(tmp_path / "delta")])
    card = tmp_path / "delta" / "README.md"
    before, files = card.read_text(), set(card.parent.iterdir())
    card.write_text("")
    assert refresh(card.parent) == card and card.read_text() == before != (adapted / "README.md").read_text()
    assert set(card.parent.iterdir()) == files
    # Its snippets load the folder that it makes, on the Hub too; that folder's load itself again.
    assert set(re.findall(r'^repo = "(.*)"$', before, re.MULTILINE)) == {"MODEL"}
    changes = {"base_model": None, "license": "mit", "title": None}
    published = _card_of(card.parent, "someone/delta", True, changes)
    data = ModelCard(published).data
    assert data.license == "mit" and data.library_name == "sensia" and "sentence-transformers" not in data.tags
    assert set(re.findall(r'^repo = "(.*)"$', published, re.MULTILINE)) == {"MODEL"}
    index = json.dumps({"weight_map": {"a": "delta-1.safetensors"}})
    (card.parent / f"{DELTA_WEIGHTS}.index.json").write_text(index)
    with pytest.raises(ValueError, match="the weight file delta-1.safetensors is missing"):
        publish(card.parent, "someone/delta", license="mit", base_model="a/b", dry_run=True)
    (card.parent / f"{DELTA_WEIGHTS}.index.json").unlink()
    main([str(card.parent), str(folders / "base"), str(tmp_path / "again")])
    assert (tmp_path / "again" / "README.md").read_text() == (adapted / "README.md").read_text()


def test_which_words_are_new_and_how_to_generate_go_along(folders, tmp_path):
    adapted = shutil.copytree(folders / "adapted", tmp_path / "adapted")
    size = len(tiny_tokenizer())
    (adapted / "vocabulary.json").write_text(json.dumps({"first_token": size, "new_tokens": 2}))
    (adapted / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2], "max_length": 33}))
    main([str(adapted), str(folders / "base"), str(tmp_path / "delta")])
    main([str(tmp_path / "delta"), str(folders / "base"), str(tmp_path / "again")])
    assert words_added(tmp_path / "again") == range(size, size + 2)
    assert BackpackForCausalLM.from_pretrained(tmp_path / "again").generation_config.eos_token_id == [1, 2]


def test_parts_that_no_weight_takes_are_refused(folders, tmp_path):
    shutil.copytree(folders / "delta", tmp_path / "delta")
    file = tmp_path / "delta" / DELTA_WEIGHTS
    save_file(load_file(file) | {"whole:backpack.elsewhere": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="no place for \\(backpack.elsewhere\\)"):
        main([str(tmp_path / "delta"), str(folders / "base"), str(tmp_path / "again")])
