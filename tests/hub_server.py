"""A Hub on the loopback interface: enough of the real HTTP interface to push to and load from, in memory.

    with HubServer() as hub:
        subprocess.run([...], env=os.environ | hub.environment(tmp_path))
        assert hub.commits("models/owner/name") == ["Upload name"]

Clients read `HF_ENDPOINT` when `huggingface_hub` is imported, so they run in processes of their own. `hub.faults`
makes uploads of large files break: see `HubServer`.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


TOKEN = "hf_" + "a1B2" * 9  # like a real one, so that it is found where it must not be
LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow")


class Repo:
    """Commits of one repository, oldest first: each an oid, a message and {path: (content, is_lfs)}."""

    def __init__(self, private: bool):
        self.private = private
        self.tags = {}
        self.history = []
        self.commit("initial commit", {})

    def commit(self, message: str, files: dict) -> str:
        digest = hashlib.sha1(f"{len(self.history)}{message}{sorted(files)}".encode()).hexdigest()
        self.history.append({"oid": digest, "message": message, "files": files})
        return digest

    def at(self, revision: str):
        """The commit that a branch, a tag or an oid names; None if there is none."""
        revision = self.tags.get(revision, revision)
        if revision == "main":
            return self.history[-1]
        return next((commit for commit in self.history if commit["oid"] == revision), None)


class HubServer(ThreadingHTTPServer):
    """The server and its state.

    Attributes:
        repos: {"models/owner/name": Repo}. collections: {slug: {...}}. objects: {sha256: bytes}, the large files.
        uploads: oids in the order in which large files arrived whole. requests: (method, path) of every request.
        faults: What happens to the next uploads of large files, one entry each: "cut" closes the connection in the
            middle of the body, "stall" reads half of it, sets `stalled` and waits, None lets it through.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repos, self.collections, self.objects = {}, {}, {}
        self.uploads, self.requests, self.faults = [], [], []
        self.stalled, self.closing = threading.Event(), threading.Event()
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # clients that are killed in the middle of a request are part of the tests

    def environment(self, home) -> dict[str, str]:
        """What a client process needs in its environment; `home` is its cache folder."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
        }

    def commits(self, key: str) -> list[str]:
        return [commit["message"] for commit in self.repos[key].history[1:]]

    def files(self, key: str) -> dict[str, bytes]:
        return {path: content for path, (content, _) in self.repos[key].history[-1]["files"].items()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.dispatch()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def dispatch(self):
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        self.server.requests.append((self.command, path))
        if self.command == "PUT":
            return self.put_object(path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            for methods, pattern, action in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in methods:
                    return action(self, **match.groupdict())
        self.error(404, "EntryNotFound")

    # -- answers ---------------------------------------------------------------------------------------------------

    def answer(self, status: int, content: bytes = b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value, status: int = 200):
        self.answer(status, json.dumps(value).encode(), [("Content-Type", "application/json")])

    def error(self, status: int, code: str, headers=()):
        self.answer(status, json.dumps({"error": code}).encode(), [("X-Error-Code", code), *headers])

    def payload(self) -> dict:
        return json.loads(self.body or b"{}")

    def authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repo(self, kind: str, name: str):
        """The repository, or None after an error answer; private ones hide from strangers."""
        repo = self.server.repos.get(f"{kind}/{name}")
        writing = self.command != "GET" and self.command != "HEAD"
        if repo is None or ((repo.private or writing) and not self.authorized()):
            return self.error(404 if self.authorized() else 401, "RepoNotFound")
        return repo

    def commit_of(self, repo: Repo, revision: str):
        commit = repo.at(revision)
        return commit if commit else self.error(404, "RevisionNotFound")

    # -- repositories ----------------------------------------------------------------------------------------------

    def whoami(self):
        self.json({"type": "user", "name": "owner", "fullname": "Owner", "orgs": []})

    def create(self):
        wanted = self.payload()
        name = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
        kind = f"{wanted.get('type') or 'model'}s"
        if not self.authorized():
            return self.error(401, "Unauthorized")
        existing = f"{kind}/{name}" in self.server.repos
        if not existing:
            self.server.repos[f"{kind}/{name}"] = Repo(private=wanted.get("visibility") == "private")
        prefix = "" if kind == "models" else f"{kind}/"
        self.json({"url": f"{self.server.url}/{prefix}{name}", "name": name}, 409 if existing else 200)

    def validate_yaml(self):
        if "refused by the Hub" in self.payload()["content"]:
            return self.answer(400, b"refused by the Hub")
        self.json({"errors": [], "warnings": []})

    def info(self, kind, name, revision="main"):
        repo = self.repo(kind, name)
        commit = repo and self.commit_of(repo, revision)
        if commit:
            siblings = [{"rfilename": path} for path in commit["files"]]
            names = {"_id": name, "id": name, "modelId": name, "sha": commit["oid"]}
            self.json(names | {"private": repo.private, "siblings": siblings, "tags": [], "downloads": 0})

    def tree(self, kind, name, revision, folder=None):
        repo = self.repo(kind, name)
        commit = repo and self.commit_of(repo, revision)
        if not commit:
            return
        prefix = f"{folder}/" if folder else ""
        inside = {path: entry for path, entry in commit["files"].items() if path.startswith(prefix)}
        if folder and not inside:
            return self.error(404, "EntryNotFound")
        parents = {prefix + part for path in inside for part in path[len(prefix) :].split("/")[:-1][:1]}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(parents)]
        recursive = self.query.get("recursive", "").lower() == "true"
        for path, (content, is_lfs) in sorted(inside.items()):
            if recursive or "/" not in path[len(prefix) :]:
                entry = {"type": "file", "path": path, "oid": git_sha1(content), "size": len(content)}
                lfs = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
                entries.append(entry | {"lfs": lfs} if is_lfs else entry)
        self.json(entries)

    def refs(self, kind, name):
        repo = self.repo(kind, name)
        if repo:
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.history[-1]["oid"]}
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": oid} for t, oid in repo.tags.items()]
            self.json({"branches": [main], "converts": [], "tags": tags})

    def tag(self, kind, name, revision):
        repo = self.repo(kind, name)
        commit = repo and self.commit_of(repo, revision)
        if commit:
            tag = self.payload()["tag"]
            if tag in repo.tags:
                return self.error(409, "TagExists")
            repo.tags[tag] = commit["oid"]
            self.json({})

    def resolve(self, name, revision, path, kind="models"):
        repo = self.repo(kind, name)
        commit = repo and self.commit_of(repo, revision)
        if not commit:
            return
        headers = [("X-Repo-Commit", commit["oid"])]
        if path not in commit["files"]:
            return self.error(404, "EntryNotFound", headers)
        content, is_lfs = commit["files"][path]
        headers.append(("ETag", f'"{git_sha1(content)}"'))
        if is_lfs:
            headers += [("X-Linked-Etag", f'"{sha256(content)}"'), ("X-Linked-Size", len(content))]
        self.answer(200, content, headers)

    # -- uploads ---------------------------------------------------------------------------------------------------

    def preupload(self, kind, name, revision):
        repo = self.repo(kind, name)
        if not repo:
            return
        present, answers = repo.history[-1]["files"], []
        for file in self.payload()["files"]:
            path = file["path"]
            answer = {"path": path, "uploadMode": "lfs" if path.endswith(LFS_SUFFIXES) else "regular"}
            answer |= {"shouldIgnore": False, "oid": None}
            if path in present:
                content, is_lfs = present[path]
                answer["oid"] = sha256(content) if is_lfs else git_sha1(content)
            answers.append(answer)
        self.json({"files": answers})

    def batch(self, name, kind="models"):
        if not self.repo(kind, name):
            return
        objects = []
        for wanted in self.payload()["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.objects:  # what is stored already is not asked for again
                upload = {"href": f"{self.server.url}/objects/{wanted['oid']}"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.server.url}/verify"}}
            objects.append(entry)
        self.json({"transfer": "basic", "objects": objects})

    def put_object(self, path):
        oid, length = path.rsplit("/", 1)[1], int(self.headers["Content-Length"])
        with self.server.lock:
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault:
            self.rfile.read(length // 2)
            self.close_connection = True
            if fault == "stall":
                self.server.stalled.set()
                self.server.closing.wait(30)
            return
        content = self.rfile.read(length)
        if sha256(content) != oid:
            return self.error(400, "BadChecksum")
        with self.server.lock:
            self.server.objects[oid] = content
            self.server.uploads.append(oid)
        self.answer(200)

    def verify(self):
        wanted = self.payload()
        stored = self.server.objects.get(wanted["oid"])
        self.json({}, 200 if stored is not None and len(stored) == wanted["size"] else 404)

    def commit(self, kind, name, revision):
        repo = self.repo(kind, name)
        if not repo:
            return
        files, message = dict(repo.history[-1]["files"]), ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                message = value["summary"]
            elif operation["key"] == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    return self.error(400, "MissingObject")
                files[value["path"]] = (self.server.objects[value["oid"]], True)
            elif operation["key"] == "deletedFile":
                files.pop(value["path"], None)
        oid = repo.commit(message, files)
        self.json({"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}"})

    # -- collections -----------------------------------------------------------------------------------------------

    def create_collection(self):
        wanted = self.payload()
        slug = f"{wanted['namespace']}/{re.sub(r'[^a-z0-9]+', '-', wanted['title'].lower())}-{'0' * 24}"
        existing = slug in self.server.collections
        if not existing:
            owner = {"name": wanted["namespace"], "type": "user"}
            self.server.collections[slug] = {
                "slug": slug, "title": wanted["title"], "owner": owner, "items": [], "position": 0,
                "lastUpdated": "2026-01-01T00:00:00.000Z", "private": wanted["private"], "theme": "blue", "upvotes": 0,
            }  # fmt: skip
        self.json(self.server.collections[slug], 409 if existing else 200)

    def add_to_collection(self, slug):
        item, collection = self.payload()["item"], self.server.collections[slug]
        if item["id"] in [known["id"] for known in collection["items"]]:
            return self.error(409, "ItemExists")
        known = {"_id": str(len(collection["items"])), "position": len(collection["items"]), "author": "owner"}
        collection["items"].append(item | known)
        self.json(collection)

    def collection(self, slug):
        self.json(self.server.collections[slug])


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
REPO = rf"/api/(?P<kind>models|datasets)/{NAME}"
PREFIX = rf"/(?:(?P<kind>datasets)/)?{NAME}"
REVISION = r"(?P<revision>refs/convert/parquet|[^/]+)"
SLUG = r"(?P<slug>[\w.-]+/[\w.-]+)"


def _default_kind(action):
    """Model repositories have no prefix in file addresses."""
    return lambda handler, kind=None, **parts: action(handler, kind=kind or "models", **parts)


ROUTES = [
    (("GET",), "/api/whoami-v2", Handler.whoami),
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate_yaml),
    (("POST",), "/api/collections", Handler.create_collection),
    (("POST",), f"/api/collections/{SLUG}/items", Handler.add_to_collection),
    (("GET",), f"/api/collections/{SLUG}", Handler.collection),
    (("GET",), REPO, Handler.info),
    (("GET",), f"{REPO}/revision/{REVISION}", Handler.info),
    (("GET",), f"{REPO}/tree/{REVISION}(?:/(?P<folder>.+))?", Handler.tree),
    (("GET",), f"{REPO}/refs", Handler.refs),
    (("POST",), f"{REPO}/tag/{REVISION}", Handler.tag),
    (("POST",), f"{REPO}/preupload/{REVISION}", Handler.preupload),
    (("POST",), f"{REPO}/commit/{REVISION}", Handler.commit),
    (("POST",), rf"{PREFIX}\.git/info/lfs/objects/batch", _default_kind(Handler.batch)),
    (("POST",), "/verify", Handler.verify),
    (("GET", "HEAD"), f"{PREFIX}/resolve/{REVISION}/(?P<path>.+)", _default_kind(Handler.resolve)),
]  # fmt: skip
