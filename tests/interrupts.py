"""Ctrl-C wherever Python looks for it: between the instructions of the files at hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType


def interrupted(call: Callable[[], object], after: int, *modules: ModuleType) -> bool:
    """Whether KeyboardInterrupt came, after so many instructions of these modules' own files."""
    left, files = after, {module.__file__ for module in modules}

    def local(frame, event, _):
        nonlocal left
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left < 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return local

    before = sys.gettrace()
    sys.settrace(
        lambda frame, event, _: local(frame, event, _) if frame.f_code.co_filename in files else None
    )
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
