#!/usr/bin/env python3
"""Prints what `cargo build -p vault-cli` links, as a CycloneDX 1.6 software bill of materials.

The graph is cargo tree's: normal dependencies of this target, so neither build scripts' own, tests' nor procedural macros. Licences are those that
cargo metadata gives, checksums those of Cargo.lock. C code is part of the crate that brings it. Crates of this workspace have no purl: they
are in no registry. The same tree and the same SOURCE_DATE_EPOCH give the same bytes. Usage: sbom.py TARGET
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "vault-cli"
LINE = re.compile(r"(\d+)([\w-]+) v(\S+)(?: .*)?")


def main() -> int:
    (target,) = sys.argv[1:]
    graph, root = tree(target)
    known = {(p["name"], p["version"]): p for p in json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", target))["packages"]}
    checksums = locked()
    ours = component(root, known[root], checksums) | {"type": "application", "name": "mvault"}
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(),
            "tools": {"components": [{"type": "application", "name": "scripts/sbom.py", "version": root[1]}]},
            "component": ours,
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": [component(crate, known[crate], checksums) for crate in sorted(graph) if crate != root],
        "dependencies": [{"ref": ref(crate), "dependsOn": [ref(other) for other in sorted(graph[crate])]} for crate in sorted(graph)],
    }
    digest = hashlib.sha256(json.dumps(bom, sort_keys=True).encode()).digest()
    bom["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}"
    print(json.dumps(bom, indent=1, sort_keys=True))
    return 0


def tree(target: str):
    """Who links whom, by (name, version), and the root."""
    out = cargo("tree", "-p", PACKAGE, "-e", "normal,no-proc-macro", "--target", target, "--prefix", "depth")
    graph, path = {}, []
    for line in out.splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            raise SystemExit(f"sbom.py: error: a line of cargo tree that is not read here: {line}")
        depth, crate = int(match[1]), (match[2], match[3])
        graph.setdefault(crate, set())
        path[depth:] = [crate]
        if depth:
            graph[path[depth - 1]].add(crate)
    return graph, path[0]


def component(crate, package, checksums):
    name, version = crate
    found = {"type": "library", "bom-ref": ref(crate), "name": name, "version": version}
    if package["license"]:
        # the old form of an expression has a slash
        found["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if package["source"]:
        found["purl"] = f"pkg:cargo/{name}@{version.replace('+', '%2B')}"
        found["hashes"] = [{"alg": "SHA-256", "content": checksums[crate]}]
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def ref(crate) -> str:
    return f"{crate[0]}@{crate[1]}"


def locked():
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    return {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}


def timestamp() -> str:
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cargo(command: str, *args: str) -> str:
    return subprocess.run(["cargo", command, "--quiet", "--locked", *args], cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
