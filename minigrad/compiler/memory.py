"""How much memory there is: a program that takes more is refused with a line that says so, not ended by the system."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import TooLargeError, dims

ASKED_FROM = 1 << 28  # bytes: looking takes as long as a small program runs
MOST = 1 << 62  # bytes that can be counted at all
MACHINE, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # of Linux


def refuse_beyond(what: str, shapes: tuple, results: int, between: int) -> None:
    """Raise TooLargeError where there is no room for so many bytes of results and of values in between."""
    total = results + between
    if total > ASKED_FROM:
        free = free_bytes()
        if total > (MOST if free is None else free):
            raise too_large(what, shapes, results, between, free)


def too_large(what: str, shapes: tuple, results: int, between: int, free: int | None = None) -> TooLargeError:
    given = ", ".join(map(dims, shapes)) or "no shape"
    rest = "which is more than there is" if free is None else f"and {_in_words(free)} are free"
    return TooLargeError(
        f"{what}: for arguments of {given} it takes {_in_words(results + between)} ({_in_words(results)} of results, "
        f"{_in_words(between)} of values in between), {rest}: give fewer sequences at once, or fewer steps, and carry "
        "the detached state from window to window"
    )


def _in_words(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def free_bytes() -> int | None:
    """What can still be had without taking it from others; None where the system does not tell."""
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        told = _numbers(MACHINE)
        found.append((told["MemAvailable:"] + told.get("SwapFree:", 0)) * 1024)
    with contextlib.suppress(OSError, ValueError, KeyError):  # a container's own limit; "max" is none
        limit, used = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        told = _numbers(GROUP / "memory.stat")
        found.append(
            limit - used + told["inactive_file"] + told["active_file"]
        )  # files' pages are given back
    return max(0, min(found)) if found else None


def kept_bytes() -> int:
    """How much of memory a program may keep for sizes that it was called with before: an eighth of it all."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
    except (AttributeError, OSError, ValueError):  # Windows
        return 1 << 30


def _numbers(file: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines())}
