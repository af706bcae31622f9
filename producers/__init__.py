"""What emits events."""
