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


def processor_seconds(process):
    """The processor time it has used so far, all its threads together."""
    # The name in parentheses may hold anything; eleven fields behind it come its own time and the kernel's for it.
    fields = pathlib.Path(f"/proc/{process.child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
