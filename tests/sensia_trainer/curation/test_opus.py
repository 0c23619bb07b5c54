import base64
import hashlib

import pytest

from sensia_trainer.curation import opus
from sensia_trainer.curation.opus import (
    DownloadError,
    Unavailable,
    archive_members,
    download,
    list_corpora,
    open_index,
    resolve,
)
from sensia_trainer.curation.recipe import Source
from tests.sensia_trainer.curation.opus_server import make_index, moses_zip, serve


PATH = "/OPUS-Toy/v1/moses/en-id.txt.zip"


@pytest.fixture
def waits(monkeypatch):
    """The back-off, recorded in place of waited for."""
    seconds = []
    monkeypatch.setattr(opus.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def index(tmp_path):
    entries = [
        ("Toy", "en", "id", "v1", 10, False),
        ("Toy", "en", "id", "v2", 12, True),
        ("Toy", "en", "sw", "v2", 12, True),
        ("Tatoeba", "en", "swh", "v1", 395, True),
        ("Tatoeba", "cmn", "en", "v1", 47, True),
        ("SETIMES", "en", "tr", "v2", 207, True),
        ("Odd", "en", "x-id", "v1", 5, True),
    ]
    return open_index(make_index(tmp_path / "index.db", entries))


def test_resolve_takes_the_newest_release_or_the_one_named(index):
    assert resolve(index, "Toy", "en", "id")[1:5] == ("v2", "en", "id", 12)
    assert resolve(index, "Toy", "eng_Latn", "ind", release="v1").pairs == 10
    assert resolve(index, "Toy", "id", "en")[1:4] == ("v2", "id", "en")
    assert resolve(index, "Toy", "id", "en").file_name == "Toy_v2_moses_en-id.txt.zip"


def test_resolve_knows_other_spellings_and_codes(index):
    assert resolve(index, "SETimes", "en", "tr").corpus == "SETIMES"
    assert resolve(index, "Tatoeba", "en", "sw").target == "swh"
    assert resolve(index, "Tatoeba", "en", "zh")[2:4] == ("en", "cmn")
    assert resolve(index, "Odd", "en", "id", code="x-id").target == "x-id"
    assert resolve(index, "Odd", "id", "en", code="x-id")[2:4] == ("x-id", "en")


def test_resolve_tells_what_is_not_there(index):
    with pytest.raises(Unavailable, match="JW300 en-id: withdrawn") as gone:
        resolve(index, "JW300", "en", "id")
    assert gone.value.is_known
    with pytest.raises(
        Unavailable, match=r"no Moses file for release 'v7' \(releases of the pair: v1, v2\)"
    ) as absent:
        resolve(index, "Toy", "en", "id", release="v7")
    assert not absent.value.is_known
    with pytest.raises(Unavailable, match=r"\(codes beside en: id, sw; codes beside tr: none\); give as `code`"):
        resolve(index, "Toy", "en", "tr")
    # What is known to be gone is so in both directions, and beside English.
    for pair in (("en", "et"), ("et", "en")):
        with pytest.raises(Unavailable, match="no English-Estonian part") as gone:
            resolve(index, "GlobalVoices", *pair)
        assert gone.value.is_known
    with pytest.raises(ValueError, match="no corpus 'GlobalVoices'"):
        resolve(index, "GlobalVoices", "et", "tr")
    with pytest.raises(ValueError, match="no corpus 'Tatoba'; near names are: Tatoeba"):
        resolve(index, "Tatoba", "en", "id")
    with pytest.raises(ValueError, match="unknown language code 'xx'"):
        resolve(index, "Toy", "en", "xx")


@pytest.fixture(scope="module")
def real_index(tmp_path_factory):
    pytest.importorskip("opustools", reason="the index of OPUS comes with opustools")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        open_index().close()
        yield open_index()


def test_the_index_of_opustools_has_what_appendix_d_used(real_index):
    facts = {
        ("OpenSubtitles", "et"): ("v2018", "et", 12_486_898),
        ("QED", "sw"): ("v2.0a", "swa", 18_192),
        ("Tatoeba", "sw"): ("v2022-03-03", "swh", 395),
        ("SETimes", "tr"): ("v2", "tr", 207_678),
        ("CCAligned", "zh"): ("v1", "zh_CN", 15_181_417),
        ("GlobalVoices", "zh"): ("v2018q4", "zhs", 134_085),
    }
    for (corpus, code), (release, own, pairs) in facts.items():
        found = resolve(real_index, corpus, "en", code)
        assert (found.release, found.target, found.pairs) == (release, own, pairs)
        assert found.url.endswith(f"/{release}/moses/{'-'.join(sorted(['en', own]))}.txt.zip")
    with pytest.raises(Unavailable, match="codes beside en: jp, "):
        resolve(real_index, "GlobalVoices", "en", "ja")
    for pair in (("ja", "en"), ("en", "ja")):
        assert resolve(real_index, "GlobalVoices", *pair, code="jp").pairs == 9_204
    assert resolve(real_index, "OpenSubtitles", "en", "pt_BR").target == "pt_br"
    for corpus, code in (("CCAligned", "zh_TW"), ("TED2020", "zh_tw"), ("GlobalVoices", "zht")):
        assert resolve(real_index, corpus, "en", "zh_Hant").target == code
    # Each entry of the table of what is gone is true: the index has no such file.
    for corpus, code in opus.GONE:
        query = "SELECT count(*) FROM opusfile WHERE corpus = ? AND preprocessing = 'moses'"
        pair = " AND 'en' IN (source, target) AND ? IN (source, target)" if code else ""
        assert real_index.execute(query + pair, [corpus, code] if code else [corpus]).fetchone() == (0,)


def test_list_needs_no_network(real_index, monkeypatch):
    monkeypatch.setattr(opus, "open_index", lambda: real_index)
    table = list_corpora([Source(opus="JW300"), Source(opus="QED"), Source(path="x.tsv")], "en", "id")
    assert "missing: JW300 en-id: withdrawn" in table and "274,581" in table and "x.tsv" not in table


def test_a_broken_download_is_resumed(tmp_path, waits):
    body = bytes(range(256)) * 40
    with serve({PATH: body}) as server:
        server.cuts[PATH] = [3000, 2000]
        server.failures[PATH] = 1
        path = download(server.address + PATH, tmp_path / "a.zip")
        assert path.read_bytes() == body
        assert [wanted for _, wanted in server.requests] == [None, None, "bytes=3000-", "bytes=5000-"]
        assert waits == [1, 2, 4]
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip"]
        download(server.address + PATH, path)
        assert len(server.requests) == 4  # what is there is not fetched again


def test_an_answer_that_breaks_the_protocol_is_tried_again(tmp_path, waits):
    with serve({PATH: b"data"}) as server:
        server.headers = {"Transfer-Encoding": "chunked"}  # which the body is not
        with pytest.raises(DownloadError, match="could not be fetched in 2 attempts"):
            download(server.address + PATH, tmp_path / "a.zip", retries=2)
        server.headers = {}
        assert download(server.address + PATH, tmp_path / "a.zip").read_bytes() == b"data"


def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path, waits):
    with serve({PATH: b"old" * 500}) as server:
        server.cuts[PATH] = [100]
        with pytest.raises(DownloadError, match="could not be fetched in 1 attempts.*after 100 of 1,500 bytes"):
            download(server.address + PATH, tmp_path / "a.zip", retries=1)
        server.files[PATH] = b"new" * 400
        assert download(server.address + PATH, tmp_path / "a.zip").read_bytes() == b"new" * 400


@pytest.mark.parametrize("headers", [{"Content-MD5": base64.b64encode(bytes(16)).decode()}, {"x-amz-request-id": "1"}])
def test_sums_of_the_server_are_checked(tmp_path, waits, headers, monkeypatch):
    with serve({PATH: b"data"}) as server:
        server.headers = headers
        if "x-amz-request-id" in headers:  # an S3 store gives the MD5 as ETag
            download(server.address + PATH, tmp_path / "good.zip")
            monkeypatch.setattr(hashlib, "md5", lambda body: hashlib.sha1(body[:0]))
            monkeypatch.setattr("tests.sensia_trainer.curation.opus_server.hashlib.md5", lambda body: FakeSum())
        with pytest.raises(DownloadError, match="MD5 is not the"):
            download(server.address + PATH, tmp_path / "a.zip", retries=2)
        assert not (tmp_path / "a.zip").exists() and not (tmp_path / "a.zip.part").exists()


class FakeSum:
    def hexdigest(self):
        return "0" * 32


def test_a_sum_of_the_recipe_is_checked(tmp_path, waits):
    with serve({PATH: b"data"}) as server:
        good = hashlib.sha256(b"data").hexdigest()
        assert download(server.address + PATH, tmp_path / "a.zip", sha256=good).is_file()
        with pytest.raises(DownloadError, match="SHA-256 is"):
            download(server.address + PATH, tmp_path / "b.zip", sha256="0" * 64, retries=2)
        (tmp_path / "a.zip").write_bytes(b"of another recipe")
        assert download(server.address + PATH, tmp_path / "a.zip", sha256=good).read_bytes() == b"data"


def test_an_unreachable_host_is_tried_with_back_off_and_a_missing_file_once(tmp_path, waits):
    with serve({}) as server:
        address = server.address
        with pytest.raises(DownloadError, match=r"is not there \(HTTP 404\)"):
            download(address + PATH, tmp_path / "a.zip")
        assert waits == [] and len(server.requests) == 1
    with pytest.raises(DownloadError, match="could not be fetched in 4 attempts"):
        download(address + PATH, tmp_path / "a.zip", retries=4, backoff=0.5)
    assert waits == [0.5, 1, 2]


def write_zip(path, *arguments, **options):
    path.write_bytes(moses_zip("Toy", "en", "id", *arguments, **options))
    return path


def test_members_of_a_sound_archive(tmp_path):
    path = write_zip(tmp_path / "a.zip", b"one\ntwo", b"satu\r\ndua\r\n")
    assert archive_members(path, "en", "id") == ("Toy.en-id.en", "Toy.en-id.id")
    assert archive_members(path, "id", "en") == ("Toy.en-id.id", "Toy.en-id.en")


def test_archives_that_are_not_used(tmp_path):
    whole = moses_zip("Toy", "en", "id", b"one\n" * 500, b"satu\n" * 500)
    damaged = bytearray(whole)
    damaged[whole.index(b"Toy.en-id.en") + 14] ^= 0xFF
    for name, data in (("truncated", whole[: len(whole) // 2]), ("empty", b""), ("page", b"<html>"), ("bad", damaged)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DownloadError, match=f"{name} is not a sound archive"):
            archive_members(tmp_path / name, "en", "id")
    locked = bytearray(whole)
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag of encryption, in both kinds of headers
        at = -1
        while (at := locked.find(signature, at + 1)) >= 0:
            locked[at + flags] |= 1
    (tmp_path / "locked").write_bytes(locked)
    with pytest.raises(DownloadError, match="locked is not a sound archive.*encrypted"):
        archive_members(tmp_path / "locked", "en", "id")
    for climber in ("../../evil.id", "/etc/evil", "a\\..\\..\\evil"):
        path = write_zip(tmp_path / "climbs.zip", b"one\n", b"satu\n", extra=[(climber, b"x")])
        with pytest.raises(DownloadError, match="climbs out of its folder"):
            archive_members(path, "en", "id")
    assert not list(tmp_path.parent.glob("evil*"))
    with pytest.raises(DownloadError, match="2 lines, Toy.en-id.id has 3"):
        archive_members(write_zip(tmp_path / "c.zip", b"one\ntwo\n", b"satu\ndua\ntiga"), "en", "id")
    with pytest.raises(DownloadError, match=r"0 members ending in \.tr"):
        archive_members(write_zip(tmp_path / "d.zip", b"one\n", b"satu\n"), "en", "tr")


def test_opus_read_reads_what_was_fetched(tmp_path, monkeypatch):
    opustools = pytest.importorskip("opustools", reason="it reads the folder")
    monkeypatch.chdir(tmp_path)
    left, right = "one\nA \u201ccat\u201d\n", "satu\nSeekor kucing\n"
    with serve({PATH: moses_zip("Toy", "en", "id", left.encode(), right.encode())}) as server:
        index = open_index(make_index(tmp_path / "index.db", [("Toy", "en", "id", "v1", 2, True)]))
        found = resolve(index, "Toy", "en", "id")
        download(server.address + PATH, tmp_path / "downloads" / found.file_name)
    opustools.OpusRead(
        directory="Toy", source="en", target="id", release="v1", preprocess="moses", write_mode="moses",
        write=[str(tmp_path / "o.en"), str(tmp_path / "o.id")], download_dir=str(tmp_path / "downloads"),
        suppress_prompts=True,
    ).printPairs()  # fmt: skip
    assert (tmp_path / "o.en").read_text() == left and (tmp_path / "o.id").read_text() == right
