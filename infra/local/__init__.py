"""The local stack runs every part of the pipeline on one machine.

It comes from wheels and needs no Docker and no root.
"""
