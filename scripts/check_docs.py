#!/usr/bin/env python3
"""Checks that the documents agree with the tree: links, rule ids, make targets, attacks' tests, no path of one machine.

Reads every file that is, or could be, under version control. Prints one line a problem and exits 1 if there is any.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FORMAT = "docs/FORMAT.md"
RED_TEAM = "docs/RED_TEAM.md"
RULE = re.compile(r"\bF-(\d+)\b")
RANGE = re.compile(r"\bF-(\d+)\]?`?\s*(?:to|-|–)\s*`?\[?F-(\d+)\b")
# Absolute paths that exist on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:work|farm|root|home/[a-z]+|Users/[a-z]+)/[\w.]")


def main() -> int:
    texts = {name: text for name in tracked() if (text := read(name)) is not None}
    problems = [*links(texts), *rules(texts), *paths(texts), *commands(texts), *attacks(texts)]
    for problem in sorted(problems):
        print(f"check-docs: {problem}")
    return 1 if problems else 0


def tracked() -> list[str]:
    out = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [name for name in out.split("\0") if name and (ROOT / name).is_file()]


def read(name: str) -> str | None:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def links(texts):
    """Relative links of Markdown files, and their anchors."""
    for name, text in texts.items():
        if not name.endswith(".md"):
            continue
        prose = re.sub(r"```.*?```", "", text, flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            if not file.exists():
                yield f"{name}: link to {target}: no such file"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
                yield f"{name}: link to {target}: no such heading"


def anchors(text: str) -> set[str]:
    """Headings as they are named in links."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rules(texts):
    """Every rule that is cited is defined, and every rule that is defined is cited by a test or a vector."""
    document = texts.get(FORMAT)
    if document is None:
        yield f"{FORMAT} is missing"
        return
    defined = [int(n) for n in re.findall(r"^\s*[-*]? ?\**\[F-(\d+)\]", document, flags=re.M)]
    for rule in sorted({n for n in defined if defined.count(n) > 1}):
        yield f"{FORMAT}: [F-{rule}] is defined twice"
    tested = set()
    for name, text in texts.items():
        # rules belong to FORMAT.md; the texts that only explain how to cite them are left out
        if name in (FORMAT, "scripts/check_docs.py") or name.endswith(".md"):
            continue
        for rule in sorted(cited(text) - set(defined)):
            yield f"{name}: cites [F-{rule}], which {FORMAT} does not define"
        tested |= cited(test_part(name, text))
    for rule in sorted(set(defined) - tested):
        yield f"{FORMAT}: [F-{rule}] is cited by no test and no vector"


def cited(text: str) -> set[int]:
    found = {int(n) for n in RULE.findall(text)}
    for first, last in RANGE.findall(text):
        found |= set(range(int(first), int(last) + 1))
    return found


def test_part(name: str, text: str) -> str:
    """What of a file is a test: all of it below a folder `tests` or in a `tests.rs`, else what follows #[cfg(test)]."""
    path = pathlib.PurePath(name)
    if "tests" in path.parts or path.stem == "tests":
        return text
    return text.partition("#[cfg(test)]")[2]


def paths(texts):
    for name, text in texts.items():
        if name.endswith(".lock"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                yield f"{name}:{number}: path of one machine: {line.strip()[:60]}"


def commands(texts):
    """The README shows the commands, and every `make X` that a document names exists."""
    readme = texts.get("README.md", "")
    blocks = "".join(re.findall(r"```.*?```", readme, flags=re.S))
    for command in ("mvault keygen", "mvault seal", "mvault open", "mvault push", "mvault pull"):
        if command not in blocks:
            yield f"README.md: no command block with `{command}`"
    targets = set(re.findall(r"^([a-z]+):", texts.get("Makefile", ""), flags=re.M))
    for name, text in texts.items():
        if name.endswith(".md"):
            for target in re.findall(r"(?:`|^)make ([a-z]+)\b", text, flags=re.M):
                if target not in targets:
                    yield f"{name}: `make {target}` is no target"


def attacks(texts):
    """Every test and every case that RED_TEAM.md names is in the file that it names, and every attack has a test."""
    if RED_TEAM not in texts:
        yield f"{RED_TEAM} is missing"
        return
    for number, line in enumerate(texts[RED_TEAM].splitlines(), 1):
        if not line.startswith("|") or re.match(r"\| attack \||\|---", line):
            continue
        tests = re.findall(r"`([\w./-]+\.rs)::(\w+)`", line)
        if not tests:
            yield f"{RED_TEAM}:{number}: no test"
        for file, test in tests:
            if not re.search(rf"\bfn {test}\b", texts.get(file, "")):
                yield f"{RED_TEAM}:{number}: no test {test} in {file}"
            folder = str(pathlib.PurePath(file).parent)
            for case in re.findall(r"case `(\w+)`", line):
                if not any(f'("{case}"' in text for name, text in texts.items() if name.startswith(f"{folder}/")):
                    yield f"{RED_TEAM}:{number}: no case {case} in {folder}"


if __name__ == "__main__":
    sys.exit(main())
