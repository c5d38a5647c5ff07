"""What everything that asks a server shares: the connection, answers, and secrets that no text may show."""
