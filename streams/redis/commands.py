"""This module lists the commands that the transport sends, by purpose. A server user needs no other permission.

Those that scripts call are among them, since the server checks each. A test runs everything that there is to do and
compares: the lists hold every command that the server then has executed, and no other.
"""

from __future__ import annotations

__all__ = ["COUNTING", "LEADING", "READING", "SCRIPTS", "SENDING", "TRIMMING", "WORKER"]

SCRIPTS = ("evalsha", "eval")
"""Any of the other purposes needs these; what a script calls is checked like a command of its own."""

READING = (
    "xgroup|create", "xgroup|delconsumer", "xreadgroup", "xpending", "xclaim", "xack", "xinfo|consumers", "exists",
    "client|id", "client|unblock", "xread",
)  # fmt: skip
"""Take entries, renew and take over leases, acknowledge, end a read that waits; of `<app>:handed-back`, hear of it."""

TRIMMING = ("exists", "xinfo|groups", "xpending", "time", "xtrim")
"""Remove what every group has acknowledged. Whoever reads a topic does it."""

SENDING = ("xadd",)
"""Write entries."""

LEADING = ("set", "get", "pttl", "pexpire", "del")
"""Hold the lock `<app>:leader`."""

COUNTING = ("exists", "xinfo|stream", "xinfo|groups", "xpending", "time")
"""Tell a topic's backlog (`backlog.py`). Nothing is written."""

WORKER = tuple(sorted({"select", *SCRIPTS, *READING, *TRIMMING, *SENDING, *LEADING, *COUNTING}))
"""Everything; `select` is for another database than 0."""
