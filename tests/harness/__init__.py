"""What the programs under tests/ share: bench, conformance and reliability.

    processes.py  processes that a run starts and ends itself
    program.py    the entry of a program: SIGTERM, exit codes
    results.py    what a run has measured, for people and for scripts
    preloads.py   libraries that are preloaded into a server, compiled from C
    postfix.py    a Postfix with configuration, queue and ports of its own

Nothing here imports the relay: what judges it shares no code with it.
"""
