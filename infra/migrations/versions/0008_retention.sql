-- Before which moment jobs may be gone with everything about them: the beginning of a month, since the counters of a month
-- are compared with the ledger's rows of all of it.
ALTER TABLE archive_retention ADD COLUMN jobs_horizon timestamptz;
