"""Fuzzing: what reads octets of strangers is fed with octets that nobody thought of.

::

    python -m tests.fuzz --list
    python -m tests.fuzz TARGET --seconds 3600     # with atheris (coverage-guided) where it is installed

A target is a file in targets/: a `check` that takes octets and raises when a statement about them does not hold,
words that get its parser further than noise does, and seeds. `tests/unit/relay/fuzz` tries each for a moment in every
run, and replays what was found before: each input that ever broke a target stays in corpus/TARGET/ as a file.
"""
