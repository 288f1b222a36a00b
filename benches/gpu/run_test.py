"""Tests of `run` itself, without a GPU and without what it carries: `benches/gpu/run --self-test`."""

import importlib.machinery
import importlib.util
import lzma
import os
import sys
import tempfile
import unittest
import zipfile

HERE = os.path.dirname(os.path.realpath(__file__))
loader = importlib.machinery.SourceFileLoader("gpu_run", os.path.join(HERE, "run"))
run = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_run", loader))
loader.exec_module(run)


class Steps(unittest.TestCase):
    def ended(self, code, limit=20):
        with tempfile.TemporaryFile() as log:
            return run.ended([sys.executable, "-c", code], log, dict(os.environ), limit)

    def test_what_becomes_of_a_step_is_told(self):
        self.assertEqual(self.ended("pass"), "ok")
        self.assertEqual(self.ended("raise SystemExit(7)"), "exit code 7")
        self.assertEqual(self.ended("import time; time.sleep(60)", 0.5), "ran past its 0 s")
        self.assertEqual(self.ended("import os; os.abort()"), "ended by signal SIGABRT")
        with tempfile.TemporaryFile() as log:
            self.assertIn("does not start", run.ended(["/no/such/program"], log, {}, 1))


class Carried(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.scratch = os.path.join(self.folder.name, "scratch")
        os.makedirs(self.scratch)
        self.binaries = run.Binaries(self.folder.name, self.scratch)

    def at(self, *parts):
        return os.path.join(self.folder.name, *parts)

    def test_programs_are_unpacked(self):
        with lzma.open(self.at("gradus.xz"), "wb") as file:
            file.write(b"#!/bin/sh\nexit 0\n")
        program = self.binaries.path("gradus")
        self.assertTrue(program.startswith(self.scratch) and os.access(program, os.X_OK))
        self.assertIsNone(self.binaries.path("it"))
        with open(self.at("it"), "wb") as file:
            file.write(b"")
        self.assertEqual(self.binaries.path("it"), self.at("it"))

    def test_wheels_become_packages(self):
        self.assertEqual(self.binaries.wheels(), [])
        os.makedirs(self.at("wheels"))
        with zipfile.ZipFile(self.at("wheels", "a-1-py3-none-any.whl"), "w") as wheel:
            wheel.writestr("a/__init__.py", "")
        (site,) = self.binaries.wheels()
        self.assertTrue(os.path.exists(os.path.join(site, "a/__init__.py")))

    def test_links_stand_in_for_where_it_was_built(self):
        self.assertEqual(run.lay_out(self.binaries), [], "nobody wrote down where")
        # The sources are somewhere else here: their folder is a link, and so is the program in it.
        built, sources = self.at("far/away"), self.at("sources")
        os.makedirs(sources)
        for name, text in (("root", built + "\n"), ("gradus", "")):
            with open(self.at(name), "w") as file:
                file.write(text)
        here, run.ROOT = run.ROOT, sources
        try:
            made = run.lay_out(self.binaries)
            program = os.path.join(built, "target/cuda/release/gradus")
            self.assertEqual(made, [built, program])
            self.assertEqual(os.path.realpath(program), os.path.realpath(self.at("gradus")))
            self.assertEqual(run.lay_out(self.binaries), [], "what is there is left alone")
            for link in reversed(made):
                os.remove(link)
            self.assertFalse(os.path.lexists(built))
        finally:
            run.ROOT = here
