"""Built-in benchmarks: one module is one plugin."""
