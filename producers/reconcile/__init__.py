"""The reconciler: finds accepted jobs that stand still, and sends again what they wait for.

It runs in the schedule's process (`teamfit worker schedule`), on its leader.
"""
