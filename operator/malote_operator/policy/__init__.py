"""Decisions: (resource, observed world, settings, now) -> conditions and what is wanted. All pure.

Each kind has a module with `decide`; the shape of what goes in and comes out is in `model`. Nothing here
reads a clock, a socket or the API server, so that every rule is a table row in a test.
"""
