"""This package holds what moves: job events, the stage wrapper, and the Redis transport."""
