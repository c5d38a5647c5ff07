"""From graded samples to what a person reads: statistics, tables, report.md, parquet and lm-eval files."""
