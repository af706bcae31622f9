-- For which entry of the broker an attempt was begun, and until when it may last, by this database's clock: what another
-- delivery of its run needs to know before it takes the run over. Without a deadline, anybody may.
ALTER TABLE generation_attempts
    ADD COLUMN entry text,
    ADD COLUMN deadline timestamptz;
