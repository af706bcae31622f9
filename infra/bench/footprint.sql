-- name: sizes()
-- The bytes of each table, with its indexes and long values.
SELECT relname AS name, pg_total_relation_size(oid) AS bytes
FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace;
