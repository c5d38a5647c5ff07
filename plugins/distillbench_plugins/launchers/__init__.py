"""Built-in launchers: one module is one plugin."""
