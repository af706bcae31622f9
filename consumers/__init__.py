"""What reacts to events: one folder per consumer group."""
