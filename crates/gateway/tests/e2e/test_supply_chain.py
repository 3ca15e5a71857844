"""T34: what the project is built from passes the gate of deny.toml, and the gate is one that refuses.

Advisories are checked by scripts/test, where their database can be fetched.
"""

import subprocess

import pytest
from support.facts import ROOT
from support.process import PATIENCE

RULES = (ROOT / "deny.toml").read_text()


def gate(rules, directory):
    """The exit status of `cargo deny` by these rules, and what it said."""
    config = directory / "deny.toml"
    config.write_text(rules)
    command = ["cargo", "deny", "--offline", "--config", str(config), "--log-level", "error", "check", "bans", "licenses", "sources"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * PATIENCE)
    return done.returncode, done.stdout + done.stderr


def test_t34_our_dependencies_pass(tmp_path):
    status, said = gate(RULES, tmp_path)
    assert status == 0, said


@pytest.mark.parametrize(
    ("rule", "stricter", "names"),
    [
        ('{ crate = "rsa" }', '{ crate = "jsonwebtoken" }', "jsonwebtoken"),
        ('"actix-http:<3.12.1"', '"actix-http:<99"', "actix-http"),
        ('"jsonwebtoken:<10.3.0"', '"jsonwebtoken:<99"', "jsonwebtoken"),
        ('    "MIT",\n', "", "MIT"),
        ('unknown-registry = "deny"', 'unknown-registry = "deny"\nallow-registry = []', "source"),
    ],
)
def test_t34_what_the_rules_do_not_let_in_is_refused_by_name(tmp_path, rule, stricter, names):
    assert RULES.count(rule) == 1
    status, said = gate(RULES.replace(rule, stricter), tmp_path)
    assert status != 0 and names in said
