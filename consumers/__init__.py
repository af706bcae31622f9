"""This package reacts to events, with one folder for each consumer group."""
