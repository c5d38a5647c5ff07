"""Cells to stages and keys: `stages` holds the records, `build` makes them, `inspect` compares them with a store."""
