"""`python -m malote_relay` is `malote-relay`."""

from malote_relay.main import main

if __name__ == "__main__":
    main()
