"""Weights on disk: safetensors files, written beside and moved into place, so that none is ever half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from .errors import InputError
from .tensor import Tensor


def save(path, tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Write tensors by name, with `notes` (texts) beside them.  Raises InputError where the file cannot be written."""
    from safetensors.numpy import save as encode

    # Contiguous, because safetensors writes anything else in the wrong order.
    data = encode({name: np.ascontiguousarray(np.asarray(t)) for name, t in tensors.items()}, metadata=notes)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            file.write(data)
        os.replace(file.name, path)
    except OSError as error:
        raise InputError(
            f"weights cannot be written to {path}: {error.strerror}; choose another folder"
        ) from None


def load(path) -> dict[str, np.ndarray]:
    """Arrays by name.  Nothing in the file is executed.  Raises InputError for a file that is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"weights cannot be read from {path}: {error}") from None
