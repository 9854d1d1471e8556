"""A Hugging Face Hub on the loopback address, as much of it as its own client asks for.

`Hub` holds repositories with commits and speaks the HTTP of huggingface_hub: revisions, files with
their commit and ETag, trees, and commits with their parent. A process that is started with
`Hub.environment` knows no other Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_made_up"
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their hash, the names that stand for one, and who may see or write it.

    Attributes:
        moved: what somebody else commits to main in the moment before the next commit arrives.
    """

    commits: dict[str, Files] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: bool = False
    writable: bool = True
    moved: Files | None = None

    def commit(self, files: Files, *names: str) -> str:
        """A commit of these files alone, which main and the given names stand for."""
        told = repr(sorted((n, hashlib.sha256(c).hexdigest()) for n, c in files.items()))
        sha = hashlib.sha1(f"{len(self.commits)} {told}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.names |= dict.fromkeys(("main", *names), sha)
        return sha

    def at(self, revision: str) -> str | None:
        """The commit that a revision stands for."""
        return revision if revision in self.commits else self.names.get(revision)

    @property
    def files(self) -> Files:
        """Those of main."""
        return self.commits[self.names["main"]]


@dataclass
class Hub:
    """The repositories of a Hub by kind and name; ``asked`` has the requests, method and path."""

    address: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def repository(self, name: str, kind: str = "models") -> Repository:
        """The repository of that name, made if there is none."""
        return self.repositories.setdefault((kind, name), Repository())

    def folder(self, name: str, folder: Path, *names: str, kind: str = "models") -> str:
        """Commits all files of a folder."""
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
        return self.repository(name, kind).commit(files, *names)

    def environment(self, cache: Path, token: str = "") -> dict[str, str]:
        """What makes a process ask this Hub, with a cache of its own."""
        known = {"HF_ENDPOINT": self.address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
        return known | {"HF_HUB_CACHE": str(cache / "hub"), "HF_TOKEN": token}


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<at>[^/]+)/(?P<path>.+)")
_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<what>revision|tree|preupload|commit)/(?P<at>[^/]+)(?:/(?P<path>.*))?)?"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.hub.asked.append(f"{self.command} {path}")
        if path == "/":
            self._send(b"")
        elif path == "/api/whoami-v2":
            self._json({"name": "me", "type": "user"})
        elif path == "/api/validate-yaml":
            self._card(json.loads(body)["content"])
        elif found := _FILE.fullmatch(path):
            self._file(found)
        elif found := _API.fullmatch(path):
            self._api(found, body)
        else:
            self._refuse(404, "EntryNotFound")

    def _card(self, content: str) -> None:
        """Whether a card's metadata are a table of YAML."""
        _, metadata, _ = content.split("---\n", 2)
        assert isinstance(yaml.safe_load(metadata), dict)
        self._json({"errors": [], "warnings": []})

    def _known(self, found: re.Match[str]) -> tuple[Repository, str] | None:
        """The repository and commit, or None where the refusal was sent."""
        kind = (found["kind"] or "models").rstrip("/")
        repository = self.hub.repositories.get((kind, found["name"]))
        may_see = repository and (not repository.private or self._token_given)
        if repository is None or not may_see:
            self._refuse(401 if not self._token_given else 404, "RepoNotFound")
            return None
        commit = repository.at(found["at"] or "main")
        if commit is None:
            self._refuse(404, "RevisionNotFound")
            return None
        return repository, commit

    @property
    def _token_given(self) -> bool:
        return bool(self.headers.get("Authorization") == f"Bearer {TOKEN}")

    def _file(self, found: re.Match[str]) -> None:
        if (known := self._known(found)) is None:
            return
        repository, commit = known
        content = repository.commits[commit].get(found["path"])
        if content is None:
            self._refuse(404, "EntryNotFound", commit)
            return
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self._send(content, **{"X-Repo-Commit": commit, "ETag": f'"{blob}"'})

    def _api(self, found: re.Match[str], body: bytes) -> None:
        if (known := self._known(found)) is None:
            return
        repository, commit = known
        what, files = found["what"], repository.commits[commit]
        if what in (None, "revision"):
            said = {"id": found["name"], "sha": commit, "private": repository.private}
            self._json(said | {"siblings": [{"rfilename": name} for name in sorted(files)]})
        elif what == "tree":
            entries = sorted(files.items())
            self._json(
                [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in entries]
            )
        elif not (repository.writable and self._token_given):
            self._refuse(403 if self._token_given else 401, "Forbidden")
        elif what == "preupload":
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            self._json({"files": modes, "commitOid": commit})
        else:
            self._commit(repository, found["name"], body)

    def _commit(self, repository: Repository, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        (header,) = [line["value"] for line in lines if line["key"] == "header"]
        if repository.moved is not None:
            repository.commit(repository.files | repository.moved)
            repository.moved = None
        if header.get("parentCommit", repository.names["main"]) != repository.names["main"]:
            self._refuse(412, "Precondition", said="A commit has happened since.")
            return
        files = dict(repository.files)
        for line in lines:
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            else:
                assert line["key"] == "header", line["key"]
        sha = repository.commit(files)
        repository.messages.append(header["summary"])
        self._json(
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{self.hub.address}/{name}/commit/{sha}",
            }
        )

    def _refuse(self, status: int, code: str, commit: str = "", said: str = "refused") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": said}
        headers |= {"X-Repo-Commit": commit} if commit else {}
        self._send(json.dumps({"error": said}).encode(), status, **headers)

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""
