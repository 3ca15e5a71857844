"""Which series a PromQL expression reads. No parser: enough for the expressions that this project ships."""

import re

# What looks like a series and is none. Words before a parenthesis are functions, and are passed over anyway.
_WORDS = {
    "and", "or", "unless", "offset", "bool",
    "sum", "count", "min", "max", "avg", "topk", "bottomk", "quantile",
}

_TOKEN = re.compile(
    r"""
    \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)  # labels
    | \[[^\]]*\]  # a range
    | \d[\w.]*  # a number or a duration
    | (?P<selector>(?P<name>[a-zA-Z_:][\w:]*)\s*(?:\{[^}]*\})?)(?![\w:]|\s*\()
    | [a-zA-Z_]\w*(?=\s*\()  # a function
    | "[^"]*"
    """,
    re.VERBOSE,
)


def selectors(expression):
    """Each selector as (name of the series, selector with its matchers)."""
    found = (match for match in _TOKEN.finditer(expression) if match["name"] and match["name"] not in _WORDS)
    return {(match["name"], match["selector"].strip()) for match in found}


def names(expression):
    return {name for name, _ in selectors(expression)}
