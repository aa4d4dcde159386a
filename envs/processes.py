"""What every process that we start does first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PDEATHSIG = 1
"""``PR_SET_PDEATHSIG`` of Linux."""


def die_with_parent(poll_s: float = 1.0) -> None:
    """End this process when the one that started it is gone, however that died.

    On Linux the kernel does it at once; elsewhere a thread looks every ``poll_s`` seconds.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()
