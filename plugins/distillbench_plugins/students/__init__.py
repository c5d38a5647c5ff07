"""Built-in students: one module is one plugin."""
