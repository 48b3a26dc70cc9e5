"""Locks that survive a fork."""

from __future__ import annotations

import os
import threading


def lock():
    """A lock that its own thread may take again, and that a fork waits for.

    So a child never finds it held by a thread that it does not have, and nothing half made behind it.
    """
    made = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=made.acquire, after_in_parent=made.release, after_in_child=made.release)
    return made
