"""Where the machine code of compiled programs is kept, how much there is, and --clear to remove it.

Nothing is lost with it but a second for each program when it is next compiled.  MINIGRAD_CACHE names another folder.

    minigrad cache
    minigrad cache --clear
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minigrad import InputError
from minigrad.compiler.cache import DAY, MOST_BYTES, MOST_FILES, PART, File, folder
from minigrad.names import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove all that is in it")


def main(options: argparse.Namespace) -> None:
    console, place = Console(), folder()
    if place.path is None:
        raise InputError("there is no cache folder: programs are compiled anew in every process")
    console.print(f"{escape(shown(str(place.path)))}", soft_wrap=True, highlight=False)
    if options.clear:
        removed = place.clear()
        left = sum(not f.name.startswith(PART) for f in place.files())
        console.print(f"removed {len(removed):,} files, {size(removed)}", highlight=False)
        if left:
            raise InputError(f"{left:,} files cannot be removed from {place.path}")
        return
    files = place.files()
    table = Table("", "files", "size", "last used")
    for column in table.columns[1:]:
        column.justify = "right"
    kinds = {
        "programs": [f for f in files if f.name.endswith(".o") and not f.name.startswith("kernel_")],
        "kernels": [f for f in files if f.name.endswith(".o") and f.name.startswith("kernel_")],
        "their sources": [f for f in files if f.name.endswith(".py")],
        "all": files,
    }
    for kind, found in kinds.items():
        table.add_row(kind, f"{len(found):,}", size(found), used(found))
    console.print(table)
    console.print(
        f"beyond {MOST_FILES:,} files or {MOST_BYTES / 1e6:,.0f} MB, what was not used for longest is removed",
        highlight=False,
    )


def size(files: Sequence[File]) -> str:
    return f"{sum(f.size for f in files) / 1e6:,.2f} MB"


def used(files: Sequence[File]) -> str:
    """When the last of them was used."""
    if not files:
        return "–"
    days = int(max(0.0, time.time() - max(f.used for f in files)) / DAY)
    return "today" if days == 0 else f"{days:,} days ago"
