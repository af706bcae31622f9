"""Faust on Redis Streams: a transport for `redis://`, `rediss://` and `unix://` brokers.

Faust finds it by the entry-point group `faust.transports`; nothing has to be imported. This package stays light on
purpose: its modules `entry`, `keys` and `dead_letter` need neither Faust nor redis-py, so that a client that only
writes entries can use them.
"""
