"""Facts that the deployment repeats, as their owner says them: a configuration is what `causeway check` makes of it."""

import os
import pathlib
import re
import subprocess
import tomllib

from .node import binary
from .process import PATIENCE

ROOT = pathlib.Path(__file__).parents[5]


def usable(shipped, directory):
    """A copy of a shipped configuration, with a secret in another place than where it is deployed."""
    secret = directory / "secret.txt"
    secret.write_text("5e" * 32)
    text, count = re.subn(r'secret_file = "[^"]*"', f'secret_file = "{secret}"', shipped.read_text())
    assert count == 1
    copy = directory / "causeway.toml"
    copy.write_text(text)
    return copy


def check(config_file, environment=None):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CAUSEWAY_")}
    return subprocess.run(
        [binary(), "check", "--config", str(config_file)],
        env=inherited | (environment or {}), capture_output=True, text=True, timeout=PATIENCE,
    )


def in_force(config_file, environment=None):
    """What is in force on a node with this configuration."""
    checked = check(config_file, environment)
    assert checked.returncode == 0, checked.stderr
    return tomllib.loads(checked.stdout)


def seconds(duration):
    parts = re.findall(r"(\d+)\s*(ms|s|m|h)", duration)
    assert parts and "".join(map("".join, parts)) == duration.replace(" ", ""), duration
    return sum(int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


def size(text):
    number, unit = re.fullmatch(r"([\d.]+)\s*(k|K|M|G|KiB|MiB|GiB|Gi)", text).groups()
    return float(number) * {"k": 2**10, "K": 2**10, "M": 2**20, "G": 2**30}[unit[0]]
