"""Several processes at the door, so that one relay uses several cores (`listen.processes`).

The relay's own process is the *core*: it alone has the store, the hour window, the sender checks, the scheduler, the
metrics and the watch on the configuration. It binds the ports, a socket for each *front* (SO_REUSEPORT: the kernel
deals connections out), and starts the fronts. A front speaks TLS and SMTP, takes the content, sets it right and signs
it, and hands the finished message to the core, which charges, commits and answers. Only then the front says 250.

    protocol.py    what they say to each other;  channel.py  and over what
    leases.py      the core's side of the hour's units: a few in stock with each front while there is plenty
    purse.py       a front's side of them
    memory.py      what the core remembers of sign-ins
    standins.py    what a front has instead of the desk, the sender checks and the metrics
    process.py     a front, from its start to its end
    supervisor.py  the core's side: starting, reloading, restarting and ending them

Nothing is decided in a front that another could decide otherwise. What a dead front had reserved goes back; what it
had handed in is the store's. A core that dies takes its fronts with it: the other end of their channel is gone.
"""
