"""The REPL's commands, one file a group; a new one is one decorated function here."""
