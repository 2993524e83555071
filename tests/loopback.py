"""Stand-ins of Kaggle and of the Hugging Face hub on the loopback address, for their real clients."""

import contextlib
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse


class Service(BaseHTTPRequestHandler):
    """Answers what the server's `answer` says; remembers what was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.server.asked.append((self.command, self.path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answer(self)

    do_POST = do_HEAD = do_GET

    def log_message(self, *_):
        pass

    def send(self, content=b"", status=200, kind="application/json", cut=None, **headers):
        """Send a whole answer, or only its first `cut` bytes and hang up."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def send_json(self, value, status=200, **headers):
        self.send(json.dumps(value).encode(), status, **headers)


@contextlib.contextmanager
def serving(answer):
    """A server on 127.0.0.1 that answers with `answer(service)`, as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    server.answer, server.asked = answer, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Kaggle:
    """A set of Kaggle: `archive` is its zip, `version` its current version.

    `status` refuses everything; `cut` breaks the first download off after so many bytes;
    `resumable`: whether ranges are offered.
    """

    def __init__(self, archive: bytes, version=1, status=None, cut=None, resumable=True):
        self.archive, self.version, self.status = archive, version, status
        self.cut, self.resumable = cut, resumable
        self.ranges = []

    def __call__(self, service):
        path = urlparse(service.path).path
        if self.status:
            service.send_json({"code": self.status, "message": "no"}, self.status)
        elif path.endswith("/GetDataset"):
            service.send_json({"currentVersionNumber": self.version})
        elif path.endswith("/DownloadDataset"):
            service.send(b"", 302, Location="http://localhost/archive.zip")
        else:
            self._download(service)

    def _download(self, service):
        content, headers = self.archive, {}
        if self.resumable:
            headers["Accept_Ranges"] = "bytes"
        wanted = re.fullmatch(r"bytes=(\d+)-", service.headers.get("Range") or "")
        if wanted and self.resumable:
            start = int(wanted[1])
            self.ranges.append(start)
            service.send(content[start:], 206, "application/zip", **headers)
            return
        cut, self.cut = self.cut, None
        service.send(content, 200, "application/zip", cut=cut, **headers)


def hub(*repositories):
    """Answers for several `Hub`; ``nobody/refuses-STATUS`` is refused with that status."""
    codes = {401: "RepoNotFound", 404: "RepoNotFound", 403: "GatedRepo"}

    def answer(service):
        path = unquote(urlparse(service.path).path)
        if refused := re.search(r"nobody/refuses-(\d+)", path):
            status = int(refused[1])
            service.send_json({"error": "no"}, status, X_Error_Code=codes[status])
            return
        for repository in repositories:
            if f"/datasets/{repository.repository}/" in path + "/":
                repository(service)
                return
        service.send_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    return answer


class Hub:
    """A data set repository of the hub: `files` maps path -> content, on one commit.

    `cut` breaks the first download of a Parquet file off after so many bytes.
    """

    def __init__(self, repository: str, files: dict[str, bytes], revisions=("main",), cut=None):
        self.repository, self.files, self.revisions, self.cut = repository, files, revisions, cut
        self.commit = hashlib.sha1(repr(sorted(files)).encode()).hexdigest()

    def __call__(self, service):
        path = unquote(urlparse(service.path).path)
        api = f"/api/datasets/{self.repository}"
        if path == api or path.startswith(f"{api}/revision/"):
            self._info(service, path.partition("/revision/")[2])
        elif path.startswith(f"{api}/tree/"):
            self._tree(service, path.removeprefix(f"{api}/tree/"))
        elif path.startswith(f"{api}/paths-info/"):
            self._paths(service)
        elif path.startswith(f"/datasets/{self.repository}/resolve/"):
            self._file(service, path.partition("/resolve/")[2])
        else:
            service.send_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def _known(self, revision):
        return revision in ("", self.commit, *self.revisions)

    def _info(self, service, revision):
        if not self._known(revision):
            service.send_json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
            return
        service.send_json(
            {
                "_id": "1", "id": self.repository, "sha": self.commit, "private": False, "gated": False,
                "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": name} for name in self.files],
            }
        )  # fmt: skip

    def _entry(self, name):
        content = self.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _tree(self, service, rest):
        revision, folder = self._split(rest)
        if revision is None:
            service.send_json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
            return
        inside = [name for name in self.files if not folder or name.startswith(folder + "/")]
        if folder and not inside:
            service.send_json({"error": "no such folder"}, 404, X_Error_Code="EntryNotFound")
            return
        folders = {parent.as_posix() for name in inside for parent in Path(name).parents if parent.as_posix() != "."}
        recursive = "recursive=True" in service.path or "recursive=true" in service.path
        entries = [self._entry(name) for name in inside]
        entries += [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
        if not recursive:
            depth = folder.count("/") + 1 if folder else 0
            entries = [entry for entry in entries if entry["path"].count("/") == depth]
        service.send_json(entries)

    def _paths(self, service):
        asked = json.loads(service.body)["paths"] if service.body.startswith(b"{") else []
        if not asked:
            from urllib.parse import parse_qs

            asked = parse_qs(service.body.decode()).get("paths", [])
        found = [self._entry(name) for name in asked if name in self.files]
        found += [
            {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
            for name in asked
            if any(file.startswith(name.rstrip("/") + "/") for file in self.files)
        ]
        service.send_json(found)

    def _split(self, rest):
        for revision in sorted((self.commit, *self.revisions), key=len, reverse=True):
            if rest == revision or rest.startswith(revision + "/"):
                return revision, rest[len(revision) + 1 :].strip("/")
        return None, rest

    def _file(self, service, rest):
        revision, name = self._split(rest)
        if revision is None:
            service.send_json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        elif name not in self.files:
            service.send_json({"error": "no such file"}, 404, X_Error_Code="EntryNotFound")
        else:
            content = self.files[name]
            headers = {
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "X_Repo_Commit": self.commit,
                "Accept_Ranges": "bytes",
            }
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", service.headers.get("Range") or "")
            if wanted and service.command == "GET":
                start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
                part = f"bytes {start}-{end}/{len(content)}"
                service.send(content[start : end + 1], 206, "application/octet-stream", Content_Range=part, **headers)
                return
            cut = None
            if service.command == "GET" and name.endswith(".parquet"):
                cut, self.cut = self.cut, None
            service.send(content, 200, "application/octet-stream", cut=cut, **headers)
