"""What an operator asks of a node and orders over its admin listener."""

import json
import urllib.parse

from .cluster import ask
from .requests import bearer

JSON = {"Content-Type": "application/json"}


class Operator:
    """Of one node; `token` is its `admin.token`."""

    def __init__(self, node, token=None):
        self.where = node.admin
        self.headers = bearer(token) if token else {}

    def get(self, path, expected=200, **parameters):
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return self._asked(ask(self.where, "GET", f"{path}{query}", self.headers), expected)

    def post(self, path, expected=200, **asked):
        return self._asked(ask(self.where, "POST", path, self.headers | JSON, json.dumps(asked)), expected)

    def _asked(self, answer, expected):
        status, _, body = answer
        assert status == expected, (status, body)
        return json.loads(body)

    def pages(self, **parameters):
        """The pages of /admin/sessions, each a list of sessions."""
        while True:
            page = self.get("/admin/sessions", **parameters)
            yield page["sessions"]
            if "next" not in page:
                return
            parameters["cursor"] = page["next"]

    def sessions(self, **parameters):
        return [session for page in self.pages(**parameters) for session in page]
