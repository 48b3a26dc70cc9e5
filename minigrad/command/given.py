"""What commands are given: texts to read, folders to write to, and what to say of them."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from ..errors import InputError


class UsageError(InputError):
    """Words that a command cannot take; the process ends with 2."""


def add_text(
    parser: argparse._ActionsContainer, default: Path | None, what: str = "a UTF-8 text file"
) -> None:
    """The text is the command's argument; an example has one of its own, and takes another by --text."""
    if default is None:
        parser.add_argument("text", type=Path, metavar="FILE", help=what)
    else:
        parser.add_argument("--text", type=Path, default=default, help=f"{what} (default: {default.name})")


def add_out(parser: argparse._ActionsContainer, default: str, what: str = "the pictures") -> None:
    parser.add_argument(
        "--out", type=Path, default=Path(default), help=f"folder for {what} (default: {default})"
    )


def add_language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language", choices=("en", "pt"),
        help="of pictures, reports and pages (default: the environment's where it is pt, else en)",
    )  # fmt: skip


def read_text(path: Path) -> str:
    """Raises InputError for what is no UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a zero in it
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as UTF-8 text ({reason})") from None


def prepare(out: Path) -> None:
    """Fail before the work, not after it, when its results could not be written: raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=out)
        os.close(handle)
        Path(probe).unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--out {out}: cannot be written ({reason}); choose another folder") from None


def not_negative(options: argparse.Namespace) -> None:
    """Raises UsageError for a negative --steps or --seed."""
    if (options.steps or 0) < 0 or options.seed < 0:
        raise UsageError("--steps and --seed must not be negative")


def visible(char: str) -> str:
    """A character so that it can be seen."""
    return {" ": "␣", "\n": "⏎"}.get(char, char if char.isprintable() else repr(char)[1:-1])


def quoted(text: str) -> str:
    return "“" + "".join(map(visible, text)).replace("␣", " ") + "”"
