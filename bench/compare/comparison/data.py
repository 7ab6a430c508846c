"""The data that is sent: incompressible, memory-backed, compared by hash afterwards."""

import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
PREFIX = "kith-bench-"
FILES, FILE_BYTES, FILES_PER_FOLDER = 10_000, 10 * 1024, 100
CHUNK_BYTES = 4 << 20


@contextmanager
def memory_folder(needed_bytes: int):
    """A folder under /dev/shm, removed at the end; leftovers of killed runs are removed first."""
    for old in MEMORY.glob(f"{PREFIX}*"):
        _remove_if_left_behind(old)
    free = min(shutil.disk_usage(MEMORY).free, available_bytes())
    if free < needed_bytes:
        raise SystemExit(
            f"error: {needed_bytes >> 20} MiB of memory are needed, {free >> 20} MiB are free\n"
            "hint: use a smaller --size"
        )
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY))
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def available_bytes() -> int:
    """Memory that the system could give now."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(re.search(r"MemAvailable:\s+(\d+)", text).group(1)) * 1024


def make_file(path: Path, size: int) -> None:
    """A file of random bytes."""
    with open(path, "wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, CHUNK_BYTES)))


def make_folder(path: Path) -> int:
    """10 000 files of 10 KiB in 100 folders; returns the bytes in them."""
    for number in range(FILES):
        folder = path / f"{number // FILES_PER_FOLDER:03}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:05}.bin").write_bytes(os.urandom(FILE_BYTES))
    return FILES * FILE_BYTES


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(path: Path) -> str:
    """One hash over names, modes and contents of everything under a folder."""
    total = hashlib.sha256()
    for entry in sorted(path.rglob("*")):
        mode = entry.lstat().st_mode
        total.update(f"{entry.relative_to(path)}\0{mode:o}\0".encode())
        if stat.S_ISREG(mode):
            total.update(file_hash(entry).encode())
    return total.hexdigest()


def _remove_if_left_behind(folder: Path) -> None:
    """Removes it unless its owner still holds the lock in it."""
    if folder.stat().st_uid != os.geteuid():
        return
    try:
        with open(folder / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return
