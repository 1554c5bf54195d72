#!/usr/bin/env python3
"""Holds the layout: which crate may depend on which, who may use which library, and how long a file may be.

Dependencies are read from `cargo metadata`, which asks no network. Python 3.9 or newer, standard library only.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

ROOT = "caudal"
CENTRE = "pipeline"

# Libraries by pattern, and the one crate that may use them. Tests of the root package are exempt: they look at the
# product from outside, as a foreign client would.
OWNERS = {
    r"async-nats": "nats",
    r"axum(-.*)?": "gateway",
    r"ort|ort-.*|qdrant-.*|rppal|tokio-serial|serialport": "connectors",
}

LONGEST_FILE = 500
SOURCES = {".rs", ".py", ".js", ".css", ".html"}


def main():
    packages = workspace()
    members = {package["name"] for package in packages}
    problems = []
    for package in packages:
        problems += directions(package, members) + ownership(package) + lints(package)
    problems += lengths()
    for problem in problems:
        print(f"layout: {problem}", file=sys.stderr)
    return 1 if problems else 0


def workspace():
    command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout)["packages"]


def directions(package, members):
    """Members depend on the centre alone, the centre on none, the root on whichever it likes."""
    name = package["name"]
    if name == ROOT:
        return []
    allowed = set() if name == CENTRE else {CENTRE}
    edges = {edge["name"] for edge in package["dependencies"]} & members - {name}
    return [f"{name} depends on {edge}; only {ROOT} may" for edge in sorted(edges - allowed)]


def ownership(package):
    problems = []
    for edge in package["dependencies"]:
        if package["name"] == ROOT and edge["kind"] == "dev":
            continue
        for pattern, owner in OWNERS.items():
            if package["name"] != owner and re.fullmatch(pattern, edge["name"]):
                problems.append(f"{package['name']} uses {edge['name']}; only {owner} may")
    return problems


def lints(package):
    """A crate that does not name the workspace's lints is not held to them."""
    if "[workspace.lints" not in (REPOSITORY / "Cargo.toml").read_text():
        return []
    manifest = Path(package["manifest_path"])
    if re.search(r"^\[lints\]\s*\nworkspace = true|^lints\.workspace = true", manifest.read_text(), re.MULTILINE):
        return []
    return [f"{manifest.relative_to(REPOSITORY)} lacks `[lints]` with `workspace = true`"]


def lengths():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout
    problems = []
    for name in sorted(filter(None, listed.split("\0"))):
        path = REPOSITORY / name
        if path.suffix not in SOURCES or not path.is_file():
            continue
        lines = path.read_text().count("\n")
        if lines > LONGEST_FILE:
            problems.append(f"{name} has {lines} lines; {LONGEST_FILE} at most, so cut it by what its parts are for")
    return problems


if __name__ == "__main__":
    sys.exit(main())
