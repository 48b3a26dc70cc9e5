"""Files are written whole or not at all: beside the old one, then in its place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from minigrad import InputError


def write(path: Path, data: bytes) -> Path:
    """Put `data` into a file, with the folders above it; raises InputError, naming the path, where that fails."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write {path}: {reason}; give a folder that may be written") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return path
