"""Generated modules on disk: a file named by the hash of its source and of what it was made with.

Several processes may write the same file at once: each writes beside it and moves its
own into place, and all of them are the same.  Numba keeps the machine code next to the
file.  Where no folder can be written, programs live in memory and one warning says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

import llvmlite
import numba
import numpy as np
import platformdirs

from . import runtime
from .kernels import VECTOR_BYTES

_folder: Path | None = None


def folder() -> Path:
    """Where programs are kept: MINIGRAD_CACHE, or the user's cache folder, or a temporary one."""
    global _folder
    wanted = Path(os.environ.get("MINIGRAD_CACHE") or platformdirs.user_cache_dir("minigrad"))
    if _folder is None or (_folder != wanted and not _folder.name.startswith("minigrad-memory-")):
        _folder = wanted if _writable(wanted) else _temporary(wanted)
    return _folder


def _writable(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _temporary(wanted: Path) -> Path:
    warnings.warn(
        f"the cache folder {wanted} cannot be written: programs are compiled anew in every process; "
        "set MINIGRAD_CACHE to a folder that can",
        stacklevel=4,
    )
    return Path(tempfile.mkdtemp(prefix="minigrad-memory-"))


def load(source: str, name: str) -> ModuleType:
    """The module of a source, from memory, from disk, or made now."""
    made_with = (
        runtime.VERSION,
        numba.__version__,
        llvmlite.__version__,
        np.__version__,
        sys.version,
        VECTOR_BYTES,
    )
    digest = hashlib.sha256(repr((made_with, source)).encode()).hexdigest()[:20]
    module_name = f"minigrad_program_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    path = folder() / f"{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_') or 'program'}_{digest}.py"
    text = f"# made with {made_with[:4]}\n{source}"
    try:
        current = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        current = ""
    if current != text:  # absent, half written by something else, or garbage
        _write(path, text)
    try:
        return _load(path, module_name)
    except Exception:  # Numba's files beside it may be garbage: once more without them
        for file in path.parent.glob(f"__pycache__/{path.stem}*"):
            file.unlink(missing_ok=True)
        return _load(path, module_name)


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False
    ) as file:
        file.write(text)
    os.replace(file.name, path)


def _load(path: Path, module_name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it runs: Numba looks for it there when it caches
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
