"""Tests of the layout check, on small crates written to a temporary folder."""

import tempfile
import unittest
from pathlib import Path

import check_layout
import imports


class Planted(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source = Path(folder.name) / "src"

    def plant(self, **files):
        """Writes files, named by their path with `__` for `/`, and returns the imports by relative path."""
        for name, text in files.items():
            file = self.source / (name.replace("__", "/") + ".rs")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        edges = imports.Crate(self.source).imports()
        relative = lambda file: str(file.relative_to(self.source))
        return {relative(file): sorted(map(relative, targets)) for file, targets in edges.items()}

    def problems(self, *layers):
        return check_layout.import_problems("planted", self.source, {"planted": layers})

    def test_a_circle_is_refused_and_shown(self):
        self.plant(
            lib="mod a;\nmod b;\nmod c;",
            a="use crate::b::B;\nstruct A(B);",
            b="fn b() { crate::c::c() }\npub struct B;",
            c="use super::a;\npub fn c() { a::A; }",
        )
        (problem,) = self.problems()
        self.assertIn("a.rs -> b.rs -> c.rs -> a.rs", problem)

    def test_an_import_against_the_order_is_refused_and_named(self):
        self.plant(lib="mod top;\nmod ground;", top="pub struct T;", ground="use crate::top::T;\nstruct G(T);")
        self.assertEqual(self.problems("ground", "top"), [])
        (problem,) = self.problems("top", "ground")
        self.assertIn("ground.rs imports top.rs", problem)

    def test_a_file_without_a_layer_is_named(self):
        self.plant(lib="mod a;\nmod b;", a="", b="")
        (problem,) = self.problems("a")
        self.assertIn("b is in no layer", problem)

    def test_a_re_export_resolves_to_the_defining_file(self):
        edges = self.plant(
            lib="mod folder;\nmod user;",
            folder__mod="mod inner;\npub use inner::{Thing as Renamed, Other};",
            folder__inner="pub struct Thing; pub struct Other;",
            user="use crate::folder::Renamed;\nstruct U(Renamed);",
        )
        self.assertEqual(edges["user.rs"], ["folder/inner.rs"])
        self.assertEqual(edges["folder/mod.rs"], [])

    def test_a_re_export_that_its_own_file_uses_is_an_import(self):
        edges = self.plant(lib="mod a;\npub use a::A;\npub fn made() -> A { A }", a="pub struct A;")
        self.assertEqual(edges["lib.rs"], ["a.rs"])

    def test_test_code_comments_and_literals_do_not_count(self):
        edges = self.plant(
            lib="mod a;\nmod b;",
            a='// crate::b::x()\nconst T: &str = "crate::b::x()";\n#[cfg(test)]\nmod tests { use crate::b::B; }',
            b="pub struct B;",
        )
        self.assertEqual(edges["a.rs"], [])

    def test_qualified_paths_are_imports(self):
        edges = self.plant(
            lib="mod a;\nmod b;", a="mod deep;\nfn f() { deep::g(); self::deep::g() }", a__deep="pub fn g() {}",
            b="fn f() { super::a::f() }",
        )
        self.assertEqual(edges["a.rs"], ["a/deep.rs"])
        self.assertEqual(edges["b.rs"], ["a.rs"])

    def test_paths_through_an_imported_module_are_imports(self):
        edges = self.plant(
            lib="mod a;\nmod b;",
            a__mod="pub mod one;\nmod two;\npub use two::Two;",
            a__one="pub fn f() {}",
            a__two="pub struct Two;",
            b="use crate::a::{self, one};\nfn f(_: a::Two) { one::f() }",
        )
        self.assertEqual(edges["b.rs"], ["a/one.rs", "a/two.rs"])

    def test_use_trees_are_flattened(self):
        found = imports.flatten("a::{self, b::{c, d as e}, f::*}")
        self.assertEqual(found, [(["a"], "a"), (["a", "b", "c"], "c"), (["a", "b", "d"], "e"), (["a", "f", "*"], "*")])


if __name__ == "__main__":
    unittest.main()
