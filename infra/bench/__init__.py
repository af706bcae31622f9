"""Measurements of the transport and of the whole pipeline, on embedded servers."""
