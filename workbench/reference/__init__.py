"""Reference pages made of the code: commands, command line, tables, devices, instructions; man page, completion."""
