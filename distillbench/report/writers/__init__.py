"""What lays the tables of a report out: on a terminal, and as files."""
