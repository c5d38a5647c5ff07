"""The command line: one command is one module, and each is registered through the hook that third parties use."""
