"""The dashboard is one that Grafana 10 and later can show: its shape, its layout, and the source that it is provisioned with.
Whether its questions are good is asked of a real Prometheus in test_deploy_monitoring.py."""

import itertools

import pytest
import yaml
from support.facts import ROOT
from support.prometheus import ALERTS, DASHBOARD

PROVISIONING = ROOT / "deploy/grafana/provisioning"
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
# What Grafana 10 brings along.
TYPES = {"stat", "timeseries", "heatmap"}
UNITS = {"short", "s", "bytes", "Bps", "cps", "percentunit"}


def titled(panels):
    return pytest.mark.parametrize("panel", panels, ids=[panel["title"] for panel in panels])


def test_it_has_a_row_for_each_question_of_an_operator():
    assert ROWS == [
        "Overview", "Traffic", "Latency", "Refusals and closes", "Redis link and canary", "Queues and memory",
        "Workers and process",
    ]
    assert DASHBOARD["panels"][0]["type"] == "row", "every panel is in a row"
    assert 36 <= DASHBOARD["schemaVersion"] <= 39, "the schemas of Grafana 10"
    assert DASHBOARD["uid"] == "causeway"


def test_no_panel_lies_on_another():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = set(itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])))
        assert not covered & cells, panel["title"]
        cells |= covered


@titled(PANELS)
def test_a_panel_asks_the_chosen_source_in_a_unit_that_there_is(panel):
    assert panel["type"] in TYPES
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(letters) == len(set(letters))
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] and target["expr"]
    if panel["type"] != "heatmap":
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@titled(PANELS)
def test_a_panel_shows_the_chosen_nodes(panel):
    for target in panel["targets"]:
        everywhere = "ALERTS" in target["expr"]
        assert everywhere or 'instance=~"$instance"' in target["expr"]


def test_the_source_is_the_one_that_is_provisioned():
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == source["type"] == "prometheus"
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]


def test_a_panel_that_names_an_alert_draws_its_threshold():
    named = 0
    for panel in PANELS:
        for name, alert in ALERTS.items():
            if name in panel.get("description", ""):
                named += 1
                threshold = float(alert["expr"].rpartition("> ")[2])
                assert threshold in [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert named
