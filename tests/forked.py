"""Processes of tests' own that begin at once and can be killed: forks of one that has their imports behind it."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "tests.store.imports", "tests.unit.weight_units"])
