#!/usr/bin/env python3
"""Checks the layout: dependencies between crates, which crate may use which library, import order and import circles
between the files of a crate, and the length of files.

Dependencies are read from `cargo metadata --offline`. Python 3.9 or newer, standard library only.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import imports

REPOSITORY = Path(__file__).resolve().parent.parent

ROOT = "caudal"
CENTRE = "pipeline"

# Libraries by pattern, and the one crate that may use them. Tests of the root package are exempt: they use the program
# from outside, as other clients do.
OWNERS = {
    r"async-nats": "nats",
    r"axum(-.*)?": "gateway",
    r"ort|ort-.*|qdrant-.*|rppal|tokio-serial|serialport": "connectors",
}

# The order of each crate's files and folders below `src`, from the top down, one layer per line: a file may import from
# its own layer and from those after it. `lib.rs` and `main.rs` declare everything and are in no layer.
LAYERS = {
    "caudal": ["cli", "assembly metrics", "role", "plan", "config_warnings machine_check", "telemetry", "extras http_client installed logging"],
    "gateway": [
        "serve",
        "router",
        "pages openapi console",
        "intake",
        "answer",
        "door",
        "wire",
        "testing",
        "state",
        "expiring_store identity capacity problem header_names flow_entry redaction spec",
    ],
    "operators": ["documents", "pictures", "general", "test_doubles"],
    "connectors": ["documents index models webhook"],
    "nats": [
        "connect",
        "jetstream",
        "queue",
        "stores",
        "link",
        "server",
        "wire",
        "topology",
        "spec",
        "sync_interval access error",
    ],
    "pipeline": [
        "testing",
        "engine",
        "spec",
        "operator_kind",
        "services",
        "registry",
        "operator",
        "edges",
        "event",
        "claims",
        "storage_outage incarnation",
        "transport",
        "completion outcome ledger",
        "payload",
        "pixel_budget",
        "overdraft pauses",
        "envelope compute trace",
        "config",
        "fault names",
        "parse_message",
    ],
}

LONGEST_FILE = 500
SOURCES = {".rs", ".py", ".js", ".css", ".html"}


def main():
    packages = workspace()
    members = {package["name"] for package in packages}
    problems = []
    for package in packages:
        problems += directions(package, members) + ownership(package) + lints(package)
        problems += import_problems(package["name"], Path(package["manifest_path"]).parent / "src", LAYERS)
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
    """Member crates may depend only on the centre, the centre on no member, the root on all."""
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
    """Every crate must enable the workspace's lints; without the entry Cargo does not apply them."""
    if "[workspace.lints" not in (REPOSITORY / "Cargo.toml").read_text():
        return []
    manifest = Path(package["manifest_path"])
    if re.search(r"^\[lints\]\s*\nworkspace = true|^lints\.workspace = true", manifest.read_text(), re.MULTILINE):
        return []
    return [f"{manifest.relative_to(REPOSITORY)} lacks `[lints]` with `workspace = true`"]


def import_problems(crate, source, layers):
    """The import circles between a crate's files, and the imports against the order of its layers."""
    edges = imports.Crate(source).imports()
    problems = []
    for circle in imports.circles(edges):
        way = " -> ".join(str(file.relative_to(source)) for file in [*circle, circle[0]])
        problems.append(f"{crate}: files import each other in a circle: {way}; move what they share below both")
    ranks = {name: rank for rank, layer in enumerate(layers.get(crate, [])) for name in layer.split()}
    if not ranks:
        return problems
    for file in sorted(edges):
        name = layer_of(file, source)
        if name not in ranks and name not in ROOTS:
            problems.append(f"{crate}: {name} is in no layer of LAYERS; say where it belongs")
        for imported in sorted(edges[file]):
            below = layer_of(imported, source)
            if ranks.get(below, len(ranks)) < ranks.get(name, -1):
                way = f"{file.relative_to(source)} imports {imported.relative_to(source)}"
                problems.append(f"{crate}: {way}, but {name} stands below {below}")
    return problems


ROOTS = {"lib", "main"}


def layer_of(file, source):
    """The folder or file directly below `src` that a file belongs to."""
    return Path(file.relative_to(source).parts[0]).stem


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
