"""Finds which file of a Rust crate imports which, from the source text, and the import circles.

A file imports another if its code names something that the other defines, by `use` or by a path. A `mod` line, or a
`pub use` whose names the file does not use itself, is not an import: a `mod.rs` that only declares and re-exports its
children depends on none of them, and a file that names a re-exported item imports the file that defines it. Code under
`#[cfg(test)]` does not count. Macros are not expanded. Python 3.9 or newer, standard library only.
"""

import re

COMMENT_OR_TEXT = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^']+|[^'\\])'""", re.DOTALL
)
TEST_ATTRIBUTE = re.compile(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]\s*(?:#\[[^\]]*\]\s*)*")
MODULE = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", re.MULTILINE)
USE = re.compile(r"^[ \t]*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", re.MULTILINE)
PATH = re.compile(r"(?<![\w:])[a-z_]\w*(?:::\w+)+")


class Module:
    """One file of a crate, with its declarations and imports. `name` is its path from the crate's root: ("a", "b")."""

    def __init__(self, name, file, code):
        self.name = name
        self.file = file
        self.children = set(MODULE.findall(code))
        self.uses = []
        for public, tree in USE.findall(code):
            self.uses += [(bool(public), path, alias) for path, alias in flatten(tree)]
        self.code = USE.sub("", MODULE.sub("", code))
        self.words = set(re.findall(r"\w+", self.code))


class Crate:
    """The modules below a crate's `src` folder; the root is `lib.rs` or `main.rs`."""

    def __init__(self, source):
        self.modules = {}
        root = next((source / name for name in ("lib.rs", "main.rs") if (source / name).is_file()), None)
        if root is not None:
            self._read((), root)

    def _read(self, name, file):
        module = Module(name, file, product_code(file.read_text()))
        self.modules[name] = module
        folder = file.parent if file.stem in ("lib", "main", "mod") else file.parent / file.stem
        for child in sorted(module.children):
            for candidate in (folder / f"{child}.rs", folder / child / "mod.rs"):
                if candidate.is_file():
                    self._read((*name, child), candidate)

    def imports(self):
        """A dictionary from each file to the set of files that it imports."""
        edges = {module.file: set() for module in self.modules.values()}
        for module in self.modules.values():
            for path in self._paths(module):
                target = self._define(module, path)
                if target is not None and target is not module:
                    edges[module.file].add(target.file)
        return edges

    def _paths(self, module):
        """The paths that a module's code names, absolute or relative; names from `use` are replaced by their paths."""
        aliases = {}
        for public, path, alias in module.uses:
            aliases[alias] = path
            is_module = self._module(module, path) is not None
            # Importing a module alone is no edge; paths through it are found below.
            if alias in ("*", "_") or (alias in module.words and not is_module):
                yield path
            elif not public and not is_module:
                yield path
        for text in PATH.findall(module.code):
            path = text.split("::")
            yield [*aliases[path[0]], *path[1:]] if path[0] in aliases else path

    def _start(self, module, path):
        """The module that a path starts from, and the rest of the path; `None` for paths into other crates."""
        if path[0] == "crate":
            return self.modules[()], path[1:]
        if path[0] == "self":
            return module, path[1:]
        if path[0] == "super":
            rest, name = path, module.name
            while rest and rest[0] == "super":
                rest, name = rest[1:], name[:-1]
            return self.modules[name], rest
        return (module, path) if path[0] in module.children else None

    def _walk(self, module, path):
        start = self._start(module, path)
        if start is None:
            return None
        found, rest = start
        while rest and (*found.name, rest[0]) in self.modules:
            found, rest = self.modules[(*found.name, rest[0])], rest[1:]
        return found, rest

    def _module(self, module, path):
        """The module that the whole path names, or `None`."""
        walked = self._walk(module, path)
        return walked[0] if walked is not None and not walked[1] else None

    def _define(self, module, path, depth=0):
        """The module that defines what a path names, following re-exports."""
        walked = self._walk(module, path)
        if walked is None or depth > 16:
            return None
        found, rest = walked
        if not rest:
            return found
        for public, exported, alias in found.uses:
            if public and alias == rest[0]:
                return self._define(found, [*exported, *rest[1:]], depth + 1)
        return found


def product_code(text):
    """Rust source without comments, literals, and code compiled only for tests."""
    code = COMMENT_OR_TEXT.sub(lambda found: '""' if found.group().endswith('"') else " ", text)
    kept, position = [], 0
    for attribute in TEST_ATTRIBUTE.finditer(code):
        if attribute.start() < position:
            continue
        kept.append(code[position:attribute.start()])
        position = item_end(code, attribute.end())
    return "".join([*kept, code[position:]])


def item_end(code, start):
    """The end of the item that begins at `start`: its semicolon, or its closing brace."""
    depth = 0
    for place in range(start, len(code)):
        if code[place] in "{([":
            depth += 1
        elif code[place] in "})]":
            depth -= 1
            if depth == 0 and code[place] == "}":
                return place + 1
        elif code[place] in ";," and depth == 0:
            return place + 1
    return len(code)


def flatten(tree):
    """The paths of a `use` tree, each with the name that it binds: `a::{b, c as d}` gives a::b as b, a::c as d."""
    tree = " ".join(tree.split())
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = tree.partition(" as ")
        names = [name.strip() for name in path.strip().split("::") if name.strip()]
        if names and names[-1] == "self" and len(names) > 1:
            names.pop()
        return [(names, alias.strip() or names[-1])] if names else []
    prefix, inner = tree[:brace], tree[brace + 1:tree.rindex("}")]
    return [found for part in split_at_commas(inner) for found in flatten(prefix + part)]


def split_at_commas(inner):
    parts, depth, begin = [], 0, 0
    for place, character in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(inner[begin:place].strip())
            begin = place + 1
    return [part for part in [*parts, inner[begin:].strip()] if part]


def circles(edges):
    """Import circles: for each strongly connected group of files, one shortest circle through its first file."""
    found, seen = [], set()
    for group in components(edges):
        if len(group) > 1 and not seen & group:
            seen |= group
            found.append(shortest_circle(min(group), group, edges))
    return found


def shortest_circle(start, group, edges):
    """The files of a shortest path from `start` back to itself within `group`."""
    ways = [[start]]
    visited = set()
    while ways:
        way = ways.pop(0)
        for following in sorted(edges[way[-1]] & group):
            if following == start:
                return way
            if following not in visited:
                visited.add(following)
                ways.append([*way, following])
    raise AssertionError("a strongly connected group has a circle through each of its members")


def components(edges):
    """Strongly connected components (Tarjan, "Depth-first search and linear graph algorithms", 1972), iteratively."""
    index, low, on_stack, stack, result = {}, {}, set(), [], []
    for root in sorted(edges):
        if root in index:
            continue
        work = [(root, iter(sorted(edges[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, following = work[-1]
            step = next(following, None)
            if step is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    result.append(close_component(node, stack, on_stack))
            elif step not in index:
                index[step] = low[step] = len(index)
                stack.append(step)
                on_stack.add(step)
                work.append((step, iter(sorted(edges[step]))))
            elif step in on_stack:
                low[node] = min(low[node], index[step])
    return result


def close_component(node, stack, on_stack):
    group = set()
    while True:
        member = stack.pop()
        on_stack.discard(member)
        group.add(member)
        if member == node:
            return group
