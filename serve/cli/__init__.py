"""The command line, `ryla`."""
