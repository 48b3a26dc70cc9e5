"""Programs and their machine code on disk, so that the next process need not compile them.

A folder of the user's own holds a program's source, for readers, and machine code, one file for each
program and each kernel.  A file is named by the hash of all that the code was made of and made with,
begins with a checksum, is written beside its place and moved there, and is read only where it belongs
to the user (or root) and nobody else may write to it.  Whatever goes wrong with the folder costs time
and one warning, never a result.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import linecache
import os
import re
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import platformdirs

from ..names import file_stem
from .machine import LEVEL, MADE_FOR, Loaded, object_code, program_level

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

WRITTEN_BY = (
    "instructions",
    "kernels",
    "llvm",
    "machine",
    "runtime",
)  # modules whose text makes machine code what it is
PART = "part_"  # what is being written
OURS = re.compile(rf".+_[0-9a-f]{{20}}\.(py|o|nbc)|{PART}\w{{8}}")  # nbc: of older versions
MOST_FILES, MOST_BYTES = 4_000, 500_000_000  # of a folder, before what was not used for longest is removed
WAIT = 120.0  # seconds for another process that makes the same program
DAY = 86_400.0


# The key.


def _made_with() -> tuple:
    """What machine code depends on besides its own source: what writes it, LLVM's version, processor, settings."""
    texts = []
    for name in WRITTEN_BY:
        spec = importlib.util.find_spec(f"{__package__}.{name}")
        assert spec and spec.origin
        texts.append(hashlib.sha256(spec.loader.get_data(spec.origin)).hexdigest())  # type: ignore[union-attr]
    return (*texts, llvmlite.__version__, *MADE_FOR)


MADE_WITH = _made_with()


def _digest(*what: object) -> str:
    return hashlib.sha256(repr((MADE_WITH, what)).encode("utf-8", "backslashreplace")).hexdigest()[:20]


# The folder.


class File(NamedTuple):
    """A file of the folder: when it was last used, in seconds since 1970, and how many bytes it has."""

    used: float
    size: int
    name: str
    path: str

    @property
    def left_over(self) -> bool:
        """Whether a crash left it half written."""
        return self.name.startswith(PART) and time.time() - self.used > DAY


class Folder:
    """Where programs are kept; `path` is None where nothing may be read, `writes` ends with the first failure."""

    def __init__(self, wanted: str | None):
        self.path: Path | None = None
        self.writes = True
        path: Any = wanted or "minigrad"
        try:
            path = wanted or platformdirs.user_cache_dir("minigrad")
            if path.startswith("~"):
                raise OSError("nobody has a home")
            path = Path(os.path.abspath(path))  # another current directory later is not another cache
            reason = _refusal(path)
            if reason is None:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                reason = _refusal(path)
        except (OSError, RuntimeError) as error:  # RuntimeError: nobody has a home
            self.fail(path, error)
            return
        if reason is None:
            self.path = path
        else:
            self.writes = False
            _warn(
                f"the cache folder {path} is not used: {reason}; programs are compiled anew in every process"
            )

    def fail(self, path: Path | str, error: Exception) -> None:
        """Nothing is written from now on; what is there is still read."""
        if self.writes:
            self.writes = False
            _warn(
                f"the cache folder {path} cannot be written ({getattr(error, 'strerror', None) or error}): "
                "new programs are compiled anew in every process; set MINIGRAD_CACHE to a folder that can"
            )

    def read(self, name: str) -> bytes | None:
        """The content of a file, if it is there, trusted, and what was written."""
        if self.path is None:
            return None
        path = self.path / name
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                data = file.read() if _may_trust(stat) else b""
        except OSError:
            return None
        if data[:32] != _checksum(name, data[32:]):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if time.time() - stat.st_atime > DAY:  # where the file system does not keep when it was last used
            with contextlib.suppress(OSError):
                os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))
        return data[32:]

    def write(self, name: str, data: bytes) -> None:
        """Put a file into its place, whole or not at all."""
        if self.path is None or not self.writes:
            return
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(prefix=PART, dir=self.path)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, self.path / name)
            temporary = None
        except OSError as error:
            self.fail(self.path, error)
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    @contextlib.contextmanager
    def made_once(self, name: str) -> Iterator[bool]:
        """Where a file is not there yet (True), one process makes it, and the others wait and find it."""
        handle = None
        if self.path is not None and self.writes and not os.path.exists(self.path / name):
            with contextlib.suppress(OSError):  # 256 locks, so that none has to be removed
                lock = self.path / f"lock_{hashlib.sha256(name.encode()).hexdigest()[:2]}"
                handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        if handle is None:
            yield False
            return
        try:
            end = time.monotonic() + WAIT  # a holder that crashed holds nothing, but one may be stopped
            while not _lock(handle) and time.monotonic() < end:
                time.sleep(0.02)
            yield True
        finally:
            _unlock(handle)
            os.close(handle)

    def files(self) -> list[File]:
        """What is in it of ours; locks are not."""
        found: list[File] = []
        if self.path is None:
            return found
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if OURS.fullmatch(entry.name):
                    stat = entry.stat(follow_symlinks=False)
                    found.append(
                        File(max(stat.st_atime, stat.st_mtime), stat.st_size, entry.name, entry.path)
                    )
        return found

    def clear(self) -> list[File]:
        """Remove all of ours but what another process may be writing; returns what could be removed."""
        removed = []
        for file in self.files():
            if file.left_over or not file.name.startswith(PART):
                with contextlib.suppress(OSError):
                    os.unlink(file.path)
                    removed.append(file)
        return removed

    def trim(self) -> None:
        """Remove what was not used for longest where there is too much, and what a crash left half written."""
        found = []
        for file in self.files():
            if file.left_over:
                with contextlib.suppress(OSError):
                    os.unlink(file.path)
            else:
                found.append(file)
        count, size = len(found), sum(file.size for file in found)
        if count <= MOST_FILES and size <= MOST_BYTES:
            return
        for file in sorted(found):  # down to four fifths, so that this is rare
            if count <= 0.8 * MOST_FILES and size <= 0.8 * MOST_BYTES:
                return
            with contextlib.suppress(OSError):
                os.unlink(file.path)
                count, size = count - 1, size - file.size


_folders: dict[str | None, Folder] = {}


def folder() -> Folder:
    """Where programs are kept: MINIGRAD_CACHE, or the user's cache folder."""
    wanted = os.environ.get("MINIGRAD_CACHE")
    if wanted not in _folders:
        _folders[wanted] = Folder(wanted)
    return _folders[wanted]


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)


def _checksum(name: str, data: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + data).digest()


def _may_trust(stat: os.stat_result) -> bool:
    """Does it belong to the user or to root, and to nobody else's pen?"""
    return not hasattr(os, "geteuid") or (stat.st_uid in (0, os.geteuid()) and not stat.st_mode & 0o022)


def _refusal(path: Path) -> str | None:
    """Why a folder that is there must not be used: what is read from it runs.

    Folders above it may be shared: whoever swaps it for another still owns that one, and the files in it.
    """
    if not hasattr(os, "geteuid"):
        return None
    users = (0, os.geteuid())
    for part in (path, *path.parents):
        if part.is_symlink() and part.lstat().st_uid not in users:
            return (
                f"{part} is a link that belongs to another user; set MINIGRAD_CACHE to a folder of your own"
            )
    if not path.exists():
        return None
    stat = path.stat()
    if stat.st_uid not in users:
        return "it belongs to another user; set MINIGRAD_CACHE to a folder of your own"
    if stat.st_mode & 0o022:
        return f"others may write to it; empty it and run: chmod 700 {path}"
    return None


def _lock(handle: int) -> bool:
    """Try to get the lock; True where there are no locks either."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without
        return True
    return True


def _unlock(handle: int) -> None:
    with contextlib.suppress(OSError):
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile holds it too
        else:
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]


# Programs, and the kernels that they call.

INT, ADDRESS = ctypes.c_int64, ctypes.c_void_p
RUN = ctypes.CFUNCTYPE(
    INT, ADDRESS, INT, ADDRESS, INT, INT, INT, INT, INT
)  # lets go of the interpreter's lock
_one_at_a_time = threading.RLock()
_programs: dict[str, Program] = {}
_kernels: dict[str, tuple[Loaded, bool]] = {}  # and whether it was in the folder


class Program:
    """Machine code that runs: ``run(table's address and length, scratch's, part, parts, first, last)``."""

    def __init__(self, loaded: Loaded, found: bool):
        self.loaded, self.found = loaded, found  # found: it was in the folder
        self.run = RUN(loaded.addresses["run"])


def load(source: str, name: str) -> Program:
    """The program of a source, from memory or made now; its machine code is found or compiled meanwhile."""
    level = program_level()
    digest = _digest(source, level)
    with _one_at_a_time:
        if digest not in _programs:
            place, stem = folder(), f"{file_stem(name)}_{digest}"
            _show(place, f"{stem}.py", str((place.path or Path("minigrad")) / f"{stem}.py"), source)
            loaded, found = _loaded(place, f"{stem}.o", "run", source, level)
            _programs[digest] = Program(loaded, found)
            if not found:
                place.trim()
        return _programs[digest]


def _loaded(
    place: Folder, file: str, symbol: str, source: str = "", level: int = LEVEL
) -> tuple[Loaded, bool]:
    """A function from its file, or made now and put there, with the kernels that it calls; was it in the file?"""
    with place.made_once(file):  # and let go before the kernels: nobody waits for one lock and holds another
        data = place.read(file)
        found = data is not None
        if data is None:
            data = _code(symbol, source, level)
            place.write(file, _checksum(file, data) + data)
    needs, sizes, code = data.split(b"\n", 2)
    imports = {name: _kernel(place, name) for name in needs.decode().split()}
    ends = [*accumulate(map(int, sizes.split()), initial=0)]
    return Loaded([code[a:b] for a, b in pairwise(ends)], [symbol], imports), found


def _code(symbol: str, source: str, level: int) -> bytes:
    """A program or a kernel, compiled: the kernels that it needs, the sizes of its pieces, and these."""
    from .llvm import kernel_code, program_code  # only now: what is found needs no writer

    code = program_code(source) if source else kernel_code(symbol)
    objects = [object_code(piece, level) for piece in code.pieces]
    sizes = " ".join(str(len(o)) for o in objects)
    return b"\n".join([" ".join(code.needs).encode(), sizes.encode(), b"".join(objects)])


def _kernel(place: Folder, symbol: str) -> int:
    """The address of a kernel for the argument types that its symbol names."""
    if symbol not in _kernels:
        file = f"kernel_{symbol}_{_digest('kernel', symbol)}.o"
        _kernels[symbol] = _loaded(place, file, symbol)
    return _kernels[symbol][0].addresses[symbol]


def _show(place: Folder, name: str, path: str, source: str) -> None:
    """The source as a file, and for tracebacks and debuggers; what runs is never read from there."""
    linecache.cache[path] = (len(source), None, source.splitlines(True), path)
    if place.path is None:
        return
    data = source.encode()
    try:
        current = Path(path).read_bytes()
    except OSError:
        current = b""
    if current != data:
        place.write(name, data)
