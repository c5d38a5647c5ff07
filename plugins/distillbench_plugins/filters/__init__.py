"""Built-in filters: one module is one plugin."""
