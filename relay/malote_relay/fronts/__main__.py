"""`python -m malote_relay.fronts`: a front, as the core starts it."""

from malote_relay.fronts.process import main

if __name__ == "__main__":
    main()
