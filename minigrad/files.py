"""Files are written whole or not at all: beside the old one, and then into its place.

The one writer of the project: weights, pictures, pages, modules and tables of results all go through `write`.
"""

from __future__ import annotations

import glob
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from .errors import InputError


def write(path, *pieces: bytes | memoryview, what: str = "the file", lasting: bool = False) -> Path:
    """Put the bytes of all `pieces` into a file, with the folders above it; returns the path.

    what : what is written, for the error.
    lasting : wait until it is on the disk, so that it outlives a power cut.

    Raises InputError, naming the path, where that fails; what was there before then still is.
    """
    try:
        path = Path(path)
        goal = Path(os.path.realpath(path))
        part = goal.with_name(f"{goal.name[:40]}.{secrets.token_hex(8)}.part")
        old = regular(goal) if goal.exists() else None
        goal.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "xb") as file:
                hold(file)
                if old is not None and hasattr(os, "fchmod"):
                    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
                file.writelines(pieces)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(part, goal)
            _sweep(goal)
        except BaseException:  # Ctrl-C too
            part.unlink(missing_ok=True)
            raise
        if lasting:
            _sync_folder(goal.parent)
        return path
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
    ) as error:  # ValueError: a path without a name, or with a zero in it
        said = getattr(error, "strerror", None) or error
        raise InputError(
            f"{what} cannot be written to {shown(path)}: {said}; choose another folder"
        ) from None


def regular(path) -> os.stat_result:
    """What the system knows of a file; raises InputError for a folder, a device, and the like."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or the like"
        raise InputError(f"{shown(path)} is {what}, not a file; give the name of a file")
    return found


def shown(path) -> str:
    """A path for a message: in quotes, on one line, cut where it is long."""
    return f"{str(path)!r:.200}"


def hold(file) -> None:
    """As long as a file is open for writing it is locked, so that others see that it is not left over."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(goal: Path) -> None:
    """Remove what processes that were killed while they wrote this file have left."""
    for rest in goal.parent.glob(f"{glob.escape(goal.name[:40])}.{'[0-9a-f]' * 16}.part") if fcntl else ():
        try:
            with open(rest, "rb") as file:
                if (
                    time.time() - os.fstat(file.fileno()).st_mtime > 60
                ):  # one that just began is not locked yet
                    hold(file)
                    rest.unlink()
        except OSError:  # somebody still writes it, or has removed it
            continue


def _sync_folder(folder: Path) -> None:
    """That the file was moved outlives a power cut only when the folder is written too, where a system can do so."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
