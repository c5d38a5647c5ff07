"""Built-in engines: one module is one plugin."""
