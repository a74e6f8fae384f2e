"""The objects a tenant should have: pure functions, one file per kind of object.

Nothing is read or written here. Whatever differs from object to object only in a name or label is built once,
in `common`. Material that must not be made twice (passwords, private keys, certificates) is passed in.
`children` puts a tenant's objects together; `relay_config` is the text that its relay reads.
"""
