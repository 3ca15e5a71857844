"""Prometheus' own tools accept the shipped configuration and rules, every alert has a story in which it fires and an entry in
the runbook, and where the rules repeat a fact they say the same as its owner."""

import re
import subprocess

import pytest
import yaml
from support.documents import OPERATIONS, anchors, broken_links, headings
from support.facts import ROOT, in_force, seconds, usable
from support.process import PATIENCE
from support.prometheus import ALERTS, RECORDED, SHIPPED

STORIES = yaml.safe_load((SHIPPED / "causeway.rules.test.yml").read_text())["tests"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "causeway.rules.yml"],
        ["test", "rules", "causeway.rules.test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_accepts(arguments):
    told = subprocess.run(
        ["promtool", *arguments], cwd=SHIPPED, capture_output=True, text=True, timeout=4 * PATIENCE
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "SUCCESS" in told.stdout


def test_every_alert_has_a_story_in_which_it_fires():
    fired = {
        alert
        for story in STORIES
        for check in story["promql_expr_test"]
        for sample in check["exp_samples"]
        for alert in re.findall(r'ALERTS\{alertname="(\w+)"', sample["labels"])
    }
    assert fired == set(ALERTS)


def test_every_alert_says_who_is_woken_what_it_is_and_where_to_read_on():
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in {"page", "ticket"}, name
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert all(text.strip() for text in alert["annotations"].values()), name


def test_the_runbook_has_one_entry_for_each_alert_and_no_other():
    entries = [title for title in headings(OPERATIONS) if re.fullmatch(r"Causeway[A-Z]\w+", title)]
    assert sorted(entries) == sorted(ALERTS)
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert name.lower() in anchors(OPERATIONS)


def test_every_entry_says_what_it_means_what_to_look_at_and_what_to_do():
    text = OPERATIONS.read_text()
    for name in ALERTS:
        (entry,) = re.findall(rf"^### {name}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
        for part in ("Means", "Look", "Do"):
            assert re.search(rf"^- \*\*{part}\*\*: \S", entry, re.M), f"{name} has no {part!r}"


def test_every_link_of_the_documentation_leads_somewhere():
    assert list(broken_links(OPERATIONS)) == []


@pytest.mark.parametrize("path", ["deploy/causeway.toml", "deploy/kubernetes/base/causeway.toml"])
def test_a_drain_of_the_shipped_nodes_is_over_before_anybody_is_told(path, tmp_path):
    config = in_force(usable(ROOT / path, tmp_path))
    drain = sum(seconds(config["drain"][key]) for key in ("lead_time", "window"))
    assert seconds(ALERTS["CausewayNotReady"]["for"]) > drain + 5, "a drain is not ready on purpose"
