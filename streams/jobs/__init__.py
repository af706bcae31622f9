"""This package holds what all stages know about a job. That is its events, topics, ownership, outcomes, and apps."""
