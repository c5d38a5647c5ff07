"""What runs: the kinds of stages."""
