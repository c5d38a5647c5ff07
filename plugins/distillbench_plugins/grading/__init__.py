"""What graders share: the sandbox for model code, and how answers are found and compared."""
