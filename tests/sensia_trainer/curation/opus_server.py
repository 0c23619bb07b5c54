"""A loopback server with OPUS' layout of addresses, and an index of it like that of opustools."""

import hashlib
import io
import sqlite3
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def moses_zip(corpus, source, target, left, right, extra=()):
    """A Moses archive as OPUS packs it: README, LICENSE and one file a side."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (
            ("README", b"Corpus Name: toy"),
            ("LICENSE", b"CC0"),
            (f"{corpus}.{source}-{target}.{source}", left),
            (f"{corpus}.{source}-{target}.{target}", right),
            *extra,
        ):
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def make_index(path, entries):
    """The table of opustools' index; entries are (corpus, source, target, release, pairs, is_latest)."""
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE opusfile (id integer PRIMARY KEY, source text, target text, corpus text, preprocessing text, "
        "version text, url text, size integer, documents integer, alignment_pairs integer, source_tokens integer, "
        "target_tokens integer, latest text, updated integer)"
    )
    for corpus, source, target, release, pairs, is_latest in entries:
        url = f"https://example.org/OPUS-{corpus}/{release}/moses/{source}-{target}.txt.zip"
        connection.execute(
            "INSERT INTO opusfile (source, target, corpus, preprocessing, version, url, size, alignment_pairs, latest)"
            " VALUES (?, ?, ?, 'moses', ?, ?, 1, ?, ?)",
            [source, target, corpus, release, url, pairs, str(is_latest)],
        )
    connection.commit()
    connection.close()
    return path


class Files(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if server.failures.get(self.path, 0) > 0:
            server.failures[self.path] -= 1
            return self.send_error(503)
        body = server.files.get(self.path)
        if body is None:
            return self.send_error(404)
        tag, start, status = f'"{hashlib.md5(body).hexdigest()}"', 0, 200
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == tag:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", tag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut = server.cuts.get(self.path, [])
        self.wfile.write(body[start : start + cut.pop(0)] if cut else body[start:])
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@contextmanager
def serve(files):
    """Serve `{"/OPUS-Toy/v1/moses/en-id.txt.zip": bytes}`; `cuts` breaks answers off, `failures` gives 503 first."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.files, server.requests, server.headers = files, [], {}
    server.cuts, server.failures = {}, {}
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
