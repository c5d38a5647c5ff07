"""What models and their checkpoints are made of: adapters, merging, checkpoint folders."""
