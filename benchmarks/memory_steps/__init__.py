"""What `memory.py` measures: a module for each sort of stage, with its steps by name."""
