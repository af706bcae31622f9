"""The local stack: every part of the pipeline on one machine, from wheels, with no Docker and no root."""
