"""OPUS: what there is (from the index inside opustools, offline) and how to fetch it (resumable, verified).

Files keep the names that `opus_read` looks for, so that `opus_read -d Tatoeba -r v2022-03-03 -s en -t et -p moses -dl
FOLDER` reads what was fetched here.
"""

import difflib
import gzip
import hashlib
import http.client
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from base64 import b64encode
from itertools import product
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..bitext.readers import moses_members
from ..bitext.streams import open_member, open_zip
from ..languages import codes_of, language


logger = logging.getLogger(__name__)

# Corpora of Appendix D that can no longer be had, by (corpus, the language beside English), or (corpus, None) for all
# pairs. Checked against the index of opustools 1.9.0. They are reported in the log, the statistics and the data card.
GONE = {
    ("JW300", None): "withdrawn from OPUS in 2021 over the terms of use of jw.org",
    ("GlobalVoices", "et"): "OPUS has no English-Estonian part of it",
    ("TED2013", "sw"): "OPUS has no English-Swahili part of it; TED2020 has 9,745 pairs",
}

# Spellings of the paper, and OPUS' own.
RENAMED = {"SETimes": "SETIMES", "CCAigned": "CCAligned"}

# Corpora that call a language otherwise than by ISO 639-1: (corpus, ISO 639-1) -> code in OPUS.
CODES = {
    ("Tatoeba", "sw"): "swh",
    ("QED", "sw"): "swa",
    ("Tatoeba", "zh"): "cmn",
    ("CCAligned", "zh"): "zh_CN",
    ("OpenSubtitles", "zh"): "zh_cn",
    ("TED2020", "zh"): "zh_cn",
    ("GlobalVoices", "zh"): "zhs",
}

# As the corpora's own pages state them; the terms of the texts they were made from may say more.
LICENCES = {
    "Tatoeba": "CC BY 2.0 FR",
    "WikiMatrix": "CC BY-SA 4.0",
    "CCAligned": "none stated (web crawl)",
    "CCMatrix": "none stated (web crawl)",
    "OpenSubtitles": "none stated (user subtitles of opensubtitles.org)",
    "TED2020": "CC BY-NC-ND 4.0 (TED terms of use)",
    "GlobalVoices": "CC BY 3.0",
    "QED": "research use (AMARA terms)",
    "SETIMES": "CC BY-SA 3.0",
}


class Unavailable(ValueError):
    """A corpus that OPUS does not have for the pair; `is_known` when the table of this module says so."""

    def __init__(self, message: str, is_known: bool = False):
        super().__init__(message)
        self.is_known = is_known


class DownloadError(ValueError):
    """A file that could not be fetched, or is not what it should be."""


class OpusFile(NamedTuple):
    """One Moses archive of OPUS, as the index describes it."""

    corpus: str
    release: str
    source: str  # OPUS' own codes of the two sides, in the order asked for
    target: str
    pairs: int
    kilobytes: int
    url: str

    @property
    def file_name(self) -> str:
        """The name under which `opus_read` looks for it."""
        first, second = sorted((self.source, self.target))
        return f"{self.corpus}_{self.release}_moses_{first}-{second}.txt.zip"


def open_index(path=None) -> sqlite3.Connection:
    """The index of opustools, unpacked (132 MB) once into the cache folder.

    Args:
        path: an index of your own (the SQLite file of opustools).

    Raises ValueError when opustools is not installed.
    """
    if path is None:
        spec = importlib.util.find_spec("opustools")
        if spec is None:
            raise ValueError("OPUS corpora need the index inside opustools: pip install opustools")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sensia"
        path = cache / f"opus-{importlib.metadata.version('opustools')}.db"
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.part")
            with (
                gzip.open(Path(spec.origin).parent / "opusdata.db.gz", "rb") as packed,
                open(partial, "wb") as unpacked,
            ):
                shutil.copyfileobj(packed, unpacked, 1 << 22)
            os.replace(partial, path)
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def resolve(index: sqlite3.Connection, corpus: str, source: str, target: str, release="latest", code=None) -> OpusFile:
    """The Moses archive of a corpus for a language pair.

    Args:
        index: see `open_index`.
        corpus: name in OPUS, or the paper's spelling of it.
        source, target: language codes of any kind.
        release: "latest", or a release by name.
        code: OPUS' code of one side, where the table of this module does not have it; tried for the target first.

    Raises:
        Unavailable: OPUS has no such file (the reason is given, or the codes that the corpus has beside either side).
        `ValueError`: no corpus of that name in the index (near matches are suggested).
    """
    name = RENAMED.get(corpus, corpus)
    iso_source, iso_target = language(source).code, language(target).code
    beside_english = iso_target if iso_source == "en" else iso_source if iso_target == "en" else None
    reason = GONE.get((name, None)) or GONE.get((name, beside_english))
    if reason:
        raise Unavailable(f"{corpus} {iso_source}-{iso_target}: {reason}", is_known=True)
    sides = [
        [CODES[name, iso]] if (name, iso) in CODES else [asked, asked.lower(), *codes_of(asked)]
        for iso, asked in ((iso_source, source), (iso_target, target))
    ]
    rows = index.execute(
        "SELECT source, target, version, alignment_pairs, size, url, latest FROM opusfile "
        "WHERE corpus = ? AND preprocessing = 'moses'",
        [name],
    ).fetchall()
    if not rows:
        names = [row[0] for row in index.execute("SELECT DISTINCT corpus FROM opusfile")]
        folded = {one.casefold(): one for one in names}
        near = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=4, cutoff=0.6)]
        raise ValueError(f"OPUS has no corpus {corpus!r}; near names are: {', '.join(near) or 'none'}")
    pairs_wanted = [(a, code) for a in sides[0]] + [(code, b) for b in sides[1]] if code else product(*sides)
    order = {pair: rank for rank, pair in enumerate(pairs_wanted)}
    found = []
    for left, right, version, pairs, size, url, latest in rows:
        swapped = (right, left) in order
        pair = (right, left) if swapped else (left, right)
        wanted = latest == "True" if release == "latest" else version == release
        if pair in order and wanted and pairs:
            found.append((order[pair], OpusFile(name, version, *pair, int(pairs), int(size or 0), url)))
    if not found:
        releases = sorted({row[2] for row in rows if row[:2] in order or row[1::-1] in order})
        if releases:
            why = f"no Moses file for release {release!r} (releases of the pair: {', '.join(releases)})"
        else:
            beside = ((iso_source, sides[0], iso_target), (iso_target, sides[1], iso_source))
            codes = (f"codes beside {iso}: {_codes_beside(rows, mine, other)}" for iso, mine, other in beside)
            why = f"no Moses file of the pair ({'; '.join(codes)}); give as `code` the one that is meant, if any"
        raise Unavailable(f"{corpus} {iso_source}-{iso_target}: OPUS has {why}")
    return min(found)[1]


def _codes_beside(rows, mine: list[str], wanted: str) -> str:
    """The codes that a corpus pairs with any of `mine`, those most like `wanted` first."""
    codes = {(right if left in mine else left) for left, right, *_ in rows if left in mine or right in mine}
    likeness = difflib.SequenceMatcher(b=wanted)

    def distance(code):
        likeness.set_seq1(code)
        return -len(os.path.commonprefix([code, wanted])), -likeness.ratio(), code

    names = sorted(codes, key=distance)
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{', '.join(names[:12]) or 'none'}{rest}"


# --- downloads -------------------------------------------------------------------------------------------------------


def download(
    url: str, path: Path, *, retries: int = 5, backoff: float = 1.0, timeout: float = 60, sha256=None
) -> Path:
    """Fetch a file, resuming what an earlier attempt left beside it (`.part`).

    Args:
        url: http(s) address.
        path: where the whole, checked file will be; nothing is there before it is complete.
        retries: attempts in all; a missing file (404, 410) is not tried again.
        backoff: seconds before the second attempt, doubled before each further one.
        timeout: seconds without an answer.
        sha256: hex digest the file must have.

    Checked against `sha256`, the server's `Content-MD5`, the MD5 that S3 stores give as `ETag`, and the length, as
    far as they are given. Raises DownloadError.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url} is not fetched: only http and https are")
    if path.is_file():
        if not sha256 or _digest(path, "sha256").hexdigest() == sha256.lower():
            return path
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(retries):
        if attempt:
            time.sleep(backoff * 2 ** (attempt - 1))
        try:
            return _attempt(url, path, timeout, sha256)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise DownloadError(f"{url} is not there (HTTP {error.code})") from error
            problem = error
        except (OSError, http.client.HTTPException, DownloadError) as error:  # URLError is an OSError
            problem = error
        logger.warning("%s: attempt %d of %d failed: %s", url, attempt + 1, retries, problem)
    raise DownloadError(f"{url} could not be fetched in {retries} attempts: {problem}") from problem


def _attempt(url: str, path: Path, timeout: float, sha256: str | None) -> Path:
    part, tag_file = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "sensia-bitext"})
    if have and tag_file.is_file():  # without a tag, nothing says that the rest belongs to the same file
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag_file.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.unlink(missing_ok=True)  # longer than the file that is there now: start again
        raise
    with response:
        headers = response.headers
        have = have if response.status == 206 else 0
        if tag := headers.get("ETag"):
            tag_file.write_text(tag)
        else:
            tag_file.unlink(missing_ok=True)
        size = have + int(headers["Content-Length"]) if headers.get("Content-Length") else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=path.name, leave=False) as bar,
        ):
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    if size is not None and part.stat().st_size < size:
        raise DownloadError(f"the connection ended after {part.stat().st_size:,} of {size:,} bytes")
    try:
        _check_sums(part, headers, size, sha256)
    except DownloadError:
        part.unlink()
        raise
    os.replace(part, path)
    tag_file.unlink(missing_ok=True)
    return path


def _check_sums(part: Path, headers, size: int | None, sha256: str | None) -> None:
    if size is not None and part.stat().st_size != size:
        raise DownloadError(f"{part.stat().st_size:,} bytes instead of {size:,}")
    tag = (headers.get("ETag") or "").strip('"')
    is_md5 = headers.get("x-amz-request-id") and re.fullmatch(
        "[0-9a-f]{32}", tag
    )  # S3: the MD5, unless in several parts
    if sha256 and _digest(part, "sha256").hexdigest() != sha256.lower():
        raise DownloadError(f"SHA-256 is {_digest(part, 'sha256').hexdigest()} instead of {sha256}")
    if is_md5 and _digest(part, "md5").hexdigest() != tag:
        raise DownloadError(f"MD5 is not the {tag} of the server")
    if headers.get("Content-MD5") and b64encode(_digest(part, "md5").digest()).decode() != headers["Content-MD5"]:
        raise DownloadError(f"MD5 is not the {headers['Content-MD5']} of the server")


def _digest(path: Path, name: str):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, name)


# --- archives --------------------------------------------------------------------------------------------------------


def archive_members(path: Path, source: str, target: str) -> tuple[str, str]:
    """
    Names of the two line-aligned members of a Moses archive, checked: both are read to their end, which checks their
    sums and counts their lines.

    Raises:
        `DownloadError`: for a file that is not an archive, damaged or suspect, lacks a side, or has sides of unequal
            lengths (both counts given).
    """
    try:
        members = moses_members(path, [source], [target])
        with open_zip(path) as archive:
            counts = [_count_lines(archive, member, path) for member in members]
    except ValueError as error:
        raise DownloadError(f"{path.name} is not a sound archive ({error})") from error
    if counts[0] != counts[1]:
        raise DownloadError(
            f"{path.name}: sides of different lengths: "
            f"{members[0]} has {counts[0]:,} lines, {members[1]} has {counts[1]:,}"
        )
    return members


def _count_lines(archive, member: str, path: Path) -> int:
    lines, last = 0, b"\n"
    with open_member(archive, member, path) as file:
        while chunk := file.read(1 << 20):
            lines += chunk.count(b"\n")
            last = chunk
    return lines + (not last.endswith(b"\n"))


def list_corpora(sources, source: str, target: str) -> str:
    """What OPUS has of some corpora, by the index alone, as a table of text.

    Args:
        sources: `recipe.Source`s; those that are not OPUS corpora are left out.
        source, target: language codes of any kind.
    """
    index = open_index()
    lines = [f"{'corpus':<16}{'release':<14}{'codes':<12}{'pairs':>12}{'MB':>8}"]
    total = 0
    for one in sources:
        if one.opus is None:
            continue
        try:
            found = resolve(index, one.opus, source, target, one.release, one.code)
            codes = f"{found.source}-{found.target}"
            total += found.pairs
            lines.append(
                f"{found.corpus:<16}{found.release:<14}{codes:<12}{found.pairs:>12,}{found.kilobytes / 1000:>8,.0f}"
            )
        except Unavailable as error:
            lines.append(f"{one.opus:<16}missing: {error}")
    return "\n".join([*lines, f"{'all':<42}{total:>12,}"])
