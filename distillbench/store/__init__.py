"""The store: results by key, their rows, and what keeps them whole."""
