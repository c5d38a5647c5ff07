"""Built-in renderers: one module is one plugin."""
