-- name: lock_plan(lock_key)$
-- Takes the right to apply a plan until the transaction ends; whether it was free.
SELECT pg_try_advisory_xact_lock(:lock_key);

-- name: keep_waiting_transaction()!
-- Lets this transaction stay open while others do the work.
SET LOCAL idle_in_transaction_session_timeout = 0;
