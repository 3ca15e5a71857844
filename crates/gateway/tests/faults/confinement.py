"""What the machine grants a process, made less or other: memory, and the time of day. Where the system does not let us, the
stories that need it are skipped and say so."""

import os
import pathlib

import pytest

LIBFAKETIME = pathlib.Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
V1, V2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")

needs_faketime = pytest.mark.skipif(
    not LIBFAKETIME.exists(), reason="NOT TESTED: libfaketime is missing (Debian package faketime)"
)
needs_memory_groups = pytest.mark.skipif(
    not any(os.access(path, os.W_OK) for path in (V1 / "cgroup.procs", V2 / "cgroup.subtree_control")),
    reason="NOT TESTED: the system allows no memory control group",
)


class Clock:
    """The time of day that a process sees, as libfaketime has it; what it measures time with goes on as it is."""

    def __init__(self, directory):
        self.file = directory / "clock"
        self.set(0)
        self.prefix = [
            "env", f"LD_PRELOAD={LIBFAKETIME}", f"FAKETIME_TIMESTAMP_FILE={self.file}",
            "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1",
        ]

    def set(self, seconds):
        """So many seconds ahead of everybody else's."""
        # Replaced as a whole: it is read at any time.
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.file)


class MemoryGroup:
    """Processes that have so much memory together, and are ended by the kernel when they want more."""

    def __init__(self, bytes_max):
        self.bytes_max = bytes_max
        self.is_v1 = (V1 / "cgroup.procs").exists()
        self.directory = (V1 if self.is_v1 else V2) / f"causeway-faults-{os.getpid()}"
        self.prefix = ["sh", "-c", f'echo $$ > {self.directory}/cgroup.procs && exec "$@"', "sh"]

    def __enter__(self):
        if not self.is_v1:
            (V2 / "cgroup.subtree_control").write_text("+memory")
        self.directory.mkdir()
        self._file("limit_in_bytes", "max").write_text(str(self.bytes_max))
        return self

    def __exit__(self, *_):
        self.directory.rmdir()

    def peak_bytes(self):
        return int(self._file("max_usage_in_bytes", "peak").read_text())

    def kills(self):
        """How many processes the kernel has ended here."""
        words = self._file("oom_control", "events").read_text().split()
        return int(words[words.index("oom_kill") + 1])

    def _file(self, v1, v2):
        return self.directory / f"memory.{v1 if self.is_v1 else v2}"
