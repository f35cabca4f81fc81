"""gdb's remote protocol: packets (transport) below, handlers (meaning) above, over a Session."""
