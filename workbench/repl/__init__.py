"""The REPL: commands as decorated functions, a shell that runs their lines, and the terminal application."""
