-- name: seal_key()$
-- The key of the seal: one row, made by a migration.
SELECT key FROM seal_key;
