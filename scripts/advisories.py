#!/usr/bin/env python3
"""What RustSec knows of crates with weaknesses, as facts, for a machine without a network.

    advisories.py import DATABASE    a checkout of RustSec's advisory-db -> scripts/advisories.tsv
    advisories.py expand FOLDER      scripts/advisories.tsv -> a database that `cargo audit --db FOLDER` reads
    advisories.py age                how old the facts are, in days

A line is an advisory: id, crate, date, kind (empty: a vulnerability), systems and processors it is limited to, versions that are
patched, versions that never had it. Lists are joined by ` | `. Descriptions stay where they are: https://rustsec.org/advisories/ID.html.
Withdrawn advisories and those about Rust itself are left out.
"""

import datetime
import json
import pathlib
import re
import subprocess
import sys
import tomllib

FACTS = pathlib.Path(__file__).with_name("advisories.tsv")
COLUMNS = ["id", "package", "date", "informational", "os", "arch", "patched", "unaffected"]
LISTS = {"os": "affected", "arch": "affected", "patched": "versions", "unaffected": "versions"}
ID = re.compile(r"RUSTSEC-\d{4}-\d{4}")
PACKAGE = re.compile(r"[A-Za-z0-9_-]+")


def main(args):
    match args:
        case ["import", database]:
            import_facts(pathlib.Path(database))
        case ["expand", folder]:
            expand(pathlib.Path(folder))
        case ["age"]:
            print((datetime.date.today() - facts()[0]).days)
        case _:
            sys.exit(__doc__)


def import_facts(database):
    day = subprocess.run(
        ["git", "-C", database, "log", "-1", "--format=%cs"], check=True, capture_output=True, text=True
    ).stdout.strip()
    rows = []
    for file in database.glob("crates/*/RUSTSEC-*.md"):
        front = re.match(r"```toml\n(.*?)\n```", file.read_text(), re.DOTALL)
        if front is None:
            sys.exit(f"{file}: does not begin with its facts in TOML")
        facts = tomllib.loads(front[1])
        if "withdrawn" not in facts["advisory"]:
            rows.append([cell(facts, column) for column in COLUMNS])
    rows.sort()
    text = "\t".join(["#", day, *COLUMNS]) + "\n" + "".join("\t".join(row) + "\n" for row in rows)
    FACTS.write_text(text)
    print(f"{FACTS}: {len(rows)} advisories of {day}")


def cell(facts, column):
    if column in LISTS:
        text = " | ".join(facts.get(LISTS[column], {}).get(column, []))
    else:
        text = str(facts["advisory"].get(column, ""))
    if "\t" in text or "\n" in text:
        sys.exit(f"{facts['advisory']['id']}: {column} has a tab or a line break")
    return text


def facts():
    """The day of the facts, and a dict for each advisory."""
    head, *lines = FACTS.read_text().splitlines()
    mark, day, *columns = head.split("\t")
    if mark != "#" or columns != COLUMNS:
        sys.exit(f"{FACTS}: not what `advisories.py import` writes")
    return datetime.date.fromisoformat(day), [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines]


def expand(folder):
    for advisory in facts()[1]:
        if not ID.fullmatch(advisory["id"]) or not PACKAGE.fullmatch(advisory["package"]):
            sys.exit(f"{FACTS}: not an advisory: {advisory['id']} of {advisory['package']}")
        to = folder / "crates" / advisory["package"]
        to.mkdir(parents=True, exist_ok=True)
        (to / f"{advisory['id']}.md").write_text(document(advisory))


def document(advisory):
    strings = [key for key in ["id", "package", "date", "informational"] if advisory[key]]
    lines = ["```toml", "[advisory]", *(f"{key} = {json.dumps(advisory[key])}" for key in strings)]
    for table in ["affected", "versions"]:
        lines += ["", f"[{table}]"]
        for key in (key for key in LISTS if LISTS[key] == table):
            items = advisory[key].split(" | ") if advisory[key] else []
            if items or table == "versions":
                lines.append(f"{key} = {json.dumps(items)}")
    page = f"https://rustsec.org/advisories/{advisory['id']}.html"
    return "\n".join([*lines, "```", "", f"# {advisory['id']}", "", f"See {page}", ""])


if __name__ == "__main__":
    main(sys.argv[1:])
