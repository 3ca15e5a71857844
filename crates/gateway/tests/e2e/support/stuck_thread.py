"""Stops one thread of a process, as a bug that never returns would: the others go on (ptrace(2), Linux)."""

import contextlib
import ctypes
import os
import pathlib

_ATTACH, _DETACH = 16, 17
_libc = ctypes.CDLL(None, use_errno=True)


def threads(pid, beginning):
    """The ids of the process' threads whose names begin so, in the order they were started."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sorted(int(task.name) for task in tasks if (task / "comm").read_text().startswith(beginning))


@contextlib.contextmanager
def stuck(thread):
    _ptrace(_ATTACH, thread)
    os.waitpid(thread, 0x40000000)  # __WALL: also threads that are not their group's first
    try:
        yield
    finally:
        _ptrace(_DETACH, thread)


def _ptrace(request, thread):
    arguments = [ctypes.c_long(argument) for argument in (request, thread, 0, 0)]
    if _libc.ptrace(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request} of thread {thread}")
