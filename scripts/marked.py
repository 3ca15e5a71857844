"""The parts of documents that scripts write: what stands between `<!-- NAME begins -->` and `<!-- NAME ends -->`."""


class Lost(Exception):
    """A document has no such part; the text says which."""


def read(page, name):
    """What the part called `name` of `page` says."""
    return split(page, name)[1]


def write(page, name, text):
    """Has the part called `name` of `page` say `text`."""
    before, _, after = split(page, name)
    page.write_text(f"{before}{text}{after}")


def split(page, name):
    """What `page` says before, in and behind the part, the markers apart from it."""
    begin, end = f"<!-- {name} begins -->\n", f"\n<!-- {name} ends -->"
    before, found_begin, rest = page.read_text().partition(begin)
    between, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise Lost(f"{page} has lost the markers of {name}")
    return before + begin, between, end + after
