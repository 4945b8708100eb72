"""The command line: a table of commands, and one way to read, explain and complete their arguments."""
