"""Built-in teachers: one module is one plugin."""
