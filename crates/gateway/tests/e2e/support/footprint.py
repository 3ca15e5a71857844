"""What a process takes from the machine, as /proc says."""

import os
import pathlib


def descriptors(process):
    """How many files and sockets it has open."""
    return len(os.listdir(f"/proc/{process.child.pid}/fd"))


def resident_bytes(process):
    """Its memory that is in RAM."""
    pages = pathlib.Path(f"/proc/{process.child.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
