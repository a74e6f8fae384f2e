"""Accounts whose mail bounces or is complained about too often are paused, and say why.

`window` counts what became of an account's mail within the last hours, `rule` (pure) judges the figures, `pauses`
keeps both up and answers the door, `commands` shows them to people, `telling` to whoever runs the relay.
"""
