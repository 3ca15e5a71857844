"""A real Prometheus with the configuration, the rules and the dashboard that are shipped."""

import json
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request

import yaml

from .process import PATIENCE, Process, free_port

DEPLOY = pathlib.Path(__file__).parents[5] / "deploy"
SHIPPED = DEPLOY / "prometheus"
RULES_TEXT = (SHIPPED / "causeway.rules.yml").read_text()
RULES = [rule for group in yaml.safe_load(RULES_TEXT)["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "causeway.json").read_text())


class Prometheus(Process):
    """Only the targets are put in place, and time is shortened: every second counts, and no alert waits longer."""

    def __init__(self, directory, nodes):
        super().__init__("prometheus", directory)
        self.where = f"{self.address}:{free_port(self.address)}"
        self.config = self.directory / "prometheus.yml"
        targets = ", ".join(node.admin for node in nodes)
        shipped = (SHIPPED / "prometheus.yml").read_text()
        self.config.write_text(
            replaced(shipped, {
                r"targets: \[.*\]": f"targets: [{targets}]",
                r"scrape_interval: \w+": "scrape_interval: 1s",
                r"scrape_timeout: \w+": "scrape_timeout: 1s",
                r"evaluation_interval: \w+": "evaluation_interval: 1s",
            })
        )
        (self.directory / "causeway.rules.yml").write_text(re.sub(r"\bfor: \w+", "for: 1s", RULES_TEXT))

    def command(self):
        return ["prometheus", f"--config.file={self.config}", f"--web.listen-address={self.where}",
                f"--storage.tsdb.path={self.directory}/data"]

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.where}/-/ready", timeout=PATIENCE) as answer:
                return answer.status == 200
        except OSError:  # it does not listen yet, or not answer well
            return False

    def ask(self, path, **parameters):
        """The `data` of an answer of the HTTP API; what it refuses fails the story with its reason."""
        url = f"http://{self.where}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as refusal:
            raise AssertionError(f"{parameters}: {refusal.read().decode()}") from None
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expression):
        """The series that an expression yields now."""
        return self.ask("query", query=expression)["result"]

    def firing(self, alert):
        """The instances for which an alert fires."""
        return {
            told["labels"].get("instance")
            for told in self.ask("alerts")["alerts"]
            if told["labels"]["alertname"] == alert and told["state"] == "firing"
        }


def replaced(text, replacements):
    for shipped, ours in replacements.items():
        text, count = re.subn(shipped, ours, text)
        assert count == 1, f"not exactly one {shipped!r}"
    return text


def panel_queries():
    """(title of the panel, expression) for everything that the dashboard asks of Prometheus, with its variables filled in."""
    targets = [
        (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    ]
    notes = [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    return [(title, filled_in(expression)) for title, expression in targets + notes]


def filled_in(expression):
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
