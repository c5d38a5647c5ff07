"""Built-in trainers: one module is one plugin."""
