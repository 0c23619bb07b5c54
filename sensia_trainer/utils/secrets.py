"""Secrets: what tokens and keys look like, where they are found whatever their encoding, and text without them."""

import base64
import binascii
import bz2
import lzma
import os
import re
import shlex
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from huggingface_hub import get_token


# Tokens as their services make them.
KINDS = {
    "a Hugging Face token": rb"(?:hf_|hf_oauth_|api_org_)[A-Za-z0-9]{30,}",
    "a GitHub token": rb"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": rb"gl(?:pat|oas|rt|dt)-[A-Za-z0-9_-]{20,}",
    "an AWS key": rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": rb"\b(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{30,}|GOCSPX-[A-Za-z0-9_-]{20,})",
    "a Slack token": rb"\bx(?:ox[abeoprs]|app)-[A-Za-z0-9-]{20,}",
    "an API key": rb"\b(?:sk-|gsk_|r8_|pplx-|xai-|KGAT_|wandb_v\d+_|dapi|dop_v1_|SG\.|npm_|dckr_pat_|pypi-)"
    rb"[A-Za-z0-9_.-]{32,}",
    "a Stripe key": rb"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{1,60}:[^\s/@\"'<>{}$]{4,200}@[\w.-]",
    "a named secret": rb"(?i)(?:api|access|secret|private|auth|hub|wandb|client)[_-]?(?:key|token|secret|password)"
    rb"[\"']?\s{0,3}[=:]\s{0,3}[\"']?(?=[A-Za-z_/+.-]*[0-9])(?=[0-9_/+.-]*[A-Za-z])[A-Za-z0-9_/+.-]{20,}",
    "a bearer token": rb"(?i)\bbearer\s+(?=[A-Za-z_.-]*[0-9])[A-Za-z0-9_.~+/-]{20,}",
}
_ANY = re.compile(b"|".join(b"(" + pattern.replace(b"(?i)", b"") + b")" for pattern in KINDS.values()), re.IGNORECASE)
_EXACT = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}
# Options and variables whose value is a secret, whatever it looks like.
_SECRET_NAME = re.compile(
    r"(?i)(?:^|[_-])(?:(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)(?<!start_)token|secret|password"
    r"|passwd|credentials?|(?:api|access|private)[_-]?key)$"
)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){20,}")
_ESCAPED = re.compile(rb"(?i)(?:\\u00|\\x|%|&#x)([0-9a-f]{2});?|&#(\d{2,3});")
_PACKED: dict[bytes, Callable] = {b"\x1f\x8b": partial(zlib.decompressobj, wbits=31), b"BZh": bz2.BZ2Decompressor}
_PACKED[b"\xfd7zXZ"] = lzma.LZMADecompressor
UNPACKED_BYTES = 2**26  # of a packed file are read

REDACTED = "<redacted>"


def find_secrets(content: bytes) -> list[tuple[int, str]]:
    """
    The secrets in a file's bytes: as they are, escaped (JSON, YAML, addresses, HTML), in UTF-16, in base64 (twice, at
    any offset, over several lines), in hexadecimal digits, or packed (gzip, bzip2, xz).

    Known are the tokens of services ([`KINDS`]), and the very values of this process's own: the token of the Hub, and
    environment variables that are named as secrets.

    Returns:
        `list[tuple[int, str]]`: line number and kind of each, in order. The secrets themselves are not repeated.
    """
    own = {name: value.encode() for name, value in own_secrets().items()}
    found = set()
    for view, line in _views(content):
        for place, kind in _in_plain(view, own):
            found.add((line or view.count(b"\n", 0, place) + 1, kind))
    return sorted(found)


def own_secrets() -> dict[str, str]:
    """The secrets that this process holds, by what they are; short ones could stand anywhere by chance."""
    secrets = {f"the value of {name}": value for name, value in os.environ.items() if is_secret_name(name)}
    secrets["the token of the Hub"] = get_token() or ""
    return {kind: value for kind, value in secrets.items() if len(value) >= 12}


def is_secret_name(name: str) -> bool:
    """Whether a setting or a variable of this name is a secret: `hub_token`, `API_KEY`; not `pad_token`."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """`text` without what looks like a secret, and without the values of this process's own."""
    for value in own_secrets().values():
        text = text.replace(value, REDACTED)
    encoded = text.encode("utf-8", "surrogatepass")
    for pattern in _EXACT.values():
        encoded = pattern.sub(REDACTED.encode(), encoded)
    return encoded.decode("utf-8", "surrogatepass")


def command_line(arguments) -> str:
    """
    A command as it may be shown: quoted for a shell, on one line, without secrets. The value of an option that is
    named as a secret (`--hub_token`) goes, whatever it looks like.
    """
    shown, hidden = [], False
    for argument in map(str, arguments):
        name, equals, _ = argument.partition("=")
        if hidden and not argument.startswith("--"):
            argument = REDACTED
        hidden = name.startswith("--") and is_secret_name(name[2:])
        if hidden and equals:
            argument, hidden = f"{name}={REDACTED}", False
        shown.append(argument if argument.endswith(REDACTED) else shlex.quote(redact(argument)))
    return " ".join(" ".join(shown).replace(f"'{REDACTED}'", REDACTED).split())


def _in_plain(view: bytes, own: dict[str, bytes]) -> Iterator[tuple[int, str]]:
    if _ANY.search(view):
        for kind, pattern in _EXACT.items():
            yield from ((found.start(), kind) for found in pattern.finditer(view))
    for kind, value in own.items():
        place = view.find(value)
        if place >= 0:
            yield place, kind


def _views(content: bytes, depth=2) -> Iterator[tuple[bytes, int | None]]:
    """Readings of `content`, each with its line there (`None`: its lines are those of `content`)."""
    yield content, None
    if not depth:
        return
    for start, decompressor in _PACKED.items():
        if content.startswith(start):
            yield from ((view, 1) for view, _ in _views(_unpacked(decompressor(), content), depth - 1))
    if content.startswith(b"\x89PNG"):
        yield from ((view, 1) for text in _png_texts(content) for view, _ in _views(text, depth - 1))
    if b"\0" in content[:4096]:
        yield content.replace(b"\0", b""), None  # UTF-16 and UTF-32
    if _ESCAPED.search(content):
        yield _ESCAPED.sub(_unescaped, content), None
    joined = re.sub(rb"[\"',]{0,2}\s*\r?\n\s*[\"']?", b"", content)  # base64 is often broken into lines
    for source in {content, joined}:
        for run in _BASE64.finditer(source):
            line = content.count(b"\n", 0, max(0, content.find(run[0][-8:]))) + 1
            for decoded in _decoded(run[0]):
                yield from ((view, line) for view, _ in _views(decoded, depth - 1))
    for run in _HEX.finditer(content):
        yield bytes.fromhex(run[0].decode()), content.count(b"\n", 0, run.start()) + 1


def _decoded(run: bytes) -> Iterator[bytes]:
    """What a run of base64 stands for; a longer word may lead into it, so each of four beginnings is tried."""
    plain = run.translate(bytes.maketrans(b"-_", b"+/"))
    for offset in range(4):
        part = plain[offset:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        try:
            yield base64.b64decode(part + b"=" * (-len(part) % 4))
        except binascii.Error:
            continue


def _png_texts(content: bytes) -> Iterator[bytes]:
    """The packed texts of a PNG image (zTXt, iTXt); those that are not packed are seen as they are."""
    place = 8
    while place + 12 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4]), content[place + 4 : place + 8]
        chunk, start = content[place + 8 : place + 8 + length], -1
        if kind in (b"zTXt", b"iTXt"):
            while (start := chunk.find(b"\x78", start + 1)) >= 0:  # how zlib begins
                yield _unpacked(zlib.decompressobj(), chunk[start:])
        place += 12 + length


def _unescaped(found) -> bytes:
    value = int(found[1], 16) if found[1] else int(found[2])
    return bytes([value]) if value < 128 else found[0]


def _unpacked(decompressor, content: bytes) -> bytes:
    """The beginning of a packed file; nothing where it is damaged."""
    try:
        return decompressor.decompress(content, UNPACKED_BYTES)
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        return b""
