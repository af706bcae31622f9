"""Replay brings failed events back by a plan that first shows its effects.

A failed event is *open* until it is replayed or discarded, and open again when it fails anew. Replaying one is either

- a **rerun**: the event brought a run to a stage (a request to quota, an accepted job to generation).
  That run has ended, or is ended now; the job starts over as its next run, which passes quota like any other; or
- a **resend**: any other event goes back to its topic byte for byte, for the one consumer group that failed it.

A plan is the exact set of events, each with what was known of it. Applying it sends that set or nothing: what changed
since is refused. A crash at any point repeats at most what it was sending, which changes nothing: a rerun's event has
an ID that follows from job and run, and a stage that sees a resent event twice does its work once.
"""
