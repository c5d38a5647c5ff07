"""The numbers of a report, by subject: values and their intervals, one checkpoint, repeats, two checkpoints."""
