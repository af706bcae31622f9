"""The transport is compared with these peers. Each is a small module that runs in a virtual environment of its own.

A module says how its library works at its best and leaves the rest to `meter`: the same jobs, the same clock. Run as
`python -m infra.bench.peers.<module>`, in one of three roles (`BENCH_ROLE`): `enqueue` writes all jobs at once, `work`
is the worker, `pace` sends jobs at a steady rate. Results are off and logs silent everywhere.
"""
