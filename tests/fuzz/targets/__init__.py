"""The targets, one file each, with a `TARGET` in it."""
