"""Secrets are found whatever their encoding, and nothing else is taken for one."""

import base64
import bz2
import gzip
import json
import lzma
from pathlib import Path
from urllib.parse import quote

import pytest

from sensia_trainer.utils.secrets import KINDS, command_line, find_secrets, redact


ROOT = Path(__file__).resolve().parents[3]
MIXED = "a1B2" * 12
# Put together here, so that no scanner of secrets stumbles over this file.
SECRETS = {
    "a Hugging Face token": "hf_" + MIXED[:34],
    "a GitHub token": "ghp_" + MIXED[:36],
    "a GitLab token": "glpat-" + MIXED[:20],
    "an AWS key": "AKIA" + "A1B2" * 4,
    "a Google key": "AIza" + MIXED[:35],
    "a Slack token": "xoxb-" + "1234-" * 5 + MIXED[:24],
    "an API key": "sk-proj-" + MIXED[:40],
    "a Stripe key": "sk_live_" + MIXED[:24],
    "a JSON web token": "eyJ" + MIXED[:20] + ".eyJ" + MIXED[:20] + "." + MIXED[:20],
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a password in an address": "https://me:" + "pass1word@example.org/x",
    "a named secret": "WANDB_API_KEY=" + "0a1b" * 10,
    "a bearer token": "Authorization: Bearer " + MIXED[:30],
}
TOKEN = SECRETS["a Hugging Face token"]


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def folded(text: str, width=30) -> str:
    return "\n  ".join(text[start : start + width] for start in range(0, len(text), width))


ENCODINGS = {
    "plain": f"token: {TOKEN}",
    "json": json.dumps({"a": [TOKEN]}),
    "json, escaped": '"' + "".join(f"\\u{ord(letter):04x}" for letter in TOKEN) + '"',
    "yaml, escaped": '"' + "".join(f"\\x{ord(letter):02X}" for letter in TOKEN) + '"',
    "percent": "https://example.org/?t=" + "".join(f"%{ord(letter):02x}" for letter in TOKEN),
    "html": "".join(f"&#{ord(letter)};" for letter in TOKEN),
    "base64": f"x: {in_base64(TOKEN)}",
    "base64 of a text": in_base64(f'{{"user": "me", "token": "{TOKEN}"}}'),
    "base64 for addresses": base64.urlsafe_b64encode(f"?>~{TOKEN}?>~".encode()).decode(),
    "base64 behind a word": f"data{in_base64(TOKEN)}",
    "base64 twice": in_base64(in_base64(TOKEN)),
    "base64 in lines": folded(in_base64(f"a long text before it, {TOKEN}, and after it")),
    "base64 in a list": json.dumps([in_base64(TOKEN)[:32], in_base64(TOKEN)[32:]], indent=2),
    "hexadecimal": TOKEN.encode().hex(),
    "utf-16": TOKEN.encode("utf-16"),
    "gzip": gzip.compress(TOKEN.encode()),
    "bzip2": bz2.compress(TOKEN.encode()),
    "xz": lzma.compress(in_base64(TOKEN).encode()),
}


def as_bytes(content) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_found_and_taken_out(kind):
    text = f"first\nsecond {SECRETS[kind]} end"
    assert (2, kind) in find_secrets(text.encode())
    assert find_secrets(redact(text).encode()) == [] and redact(text).startswith("first\nsecond ")
    assert find_secrets(in_base64(text).encode())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_token_is_found_in_every_encoding(encoding):
    content = as_bytes(ENCODINGS[encoding])
    assert "a Hugging Face token" in [kind for _, kind in find_secrets(content)]
    if b"\n" not in content and encoding not in ("utf-16", "gzip", "bzip2", "xz"):
        assert (3, "a Hugging Face token") in find_secrets(b"one\ntwo\n" + content)


def test_this_process_s_own_secrets_are_found_whatever_they_look_like(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct horse battery")
    monkeypatch.setenv("SHORT_TOKEN", "id")
    monkeypatch.setenv("HF_TOKEN", "not-in-the-usual-form")
    for secret, kind in (("correct horse battery", "MY_SERVICE_TOKEN"), ("not-in-the-usual-form", "HF_TOKEN")):
        for text in (f"id {secret}", in_base64(f"id {secret}")):
            assert (1, f"the value of {kind}") in find_secrets(text.encode())
        assert redact(f"id {secret}") == "id <redacted>"


def test_ordinary_files_hold_none():
    files = [*ROOT.glob("model_cards/backpack-micro-sensia-id/*.*"), *ROOT.glob("sensia_trainer/recipes/*.yaml")]
    files += [*ROOT.glob("modeling_backpack/*.py"), ROOT / "README.md", *ROOT.glob("results/id/sensia*.json")]
    assert len(files) > 20
    for file in files:
        if file.suffix != ".safetensors":
            assert find_secrets(file.read_bytes()) == [], file


def test_damaged_and_empty_files_are_read():
    for content in (b"", b"\x1f\x8bnot gzip", b"BZhnot", b"\xfd7zXZnot", b"\xff" * 100, b"====" * 20):
        assert find_secrets(content) == []


def test_a_command_line_is_shown_without_secrets():
    arguments = ["accelerate", "launch", "adapt.py", "--hub_token", "anything", "--seed", "1", "--hub_token=other"]
    arguments += ["--my-api-key", "x y", "--run_name", f"run {TOKEN}", "--pad_token_id", "3", "--text", "a\nb"]
    shown = command_line(arguments)
    assert shown == (
        "accelerate launch adapt.py --hub_token <redacted> --seed 1 --hub_token=<redacted> --my-api-key <redacted> "
        "--run_name 'run <redacted>' --pad_token_id 3 --text 'a b'"
    )
    assert quote("anything") not in shown
