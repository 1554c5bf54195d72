"""The files in `examples/` are what their script writes."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import make_examples


class Examples(unittest.TestCase):
    def test_the_files_are_what_their_script_writes(self):
        self.assertEqual(make_examples.differences(), [])
