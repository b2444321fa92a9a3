"""Verbs of the command line run in this process, without the program around them, shared by tests. Not a test."""

import argparse
from types import ModuleType


def run_verb(verb: ModuleType, *words: object) -> int:
    """Run a module of ``nnunet_temporal.commands`` with the words that follow the verb; return its exit status."""
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(word) for word in words]))
