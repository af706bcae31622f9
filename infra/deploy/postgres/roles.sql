-- Two roles, run once by a superuser in the database of the pipeline: `teamfit_migrate` owns the schema, and only
-- `teamfit migrate` uses it; `teamfit_app`, as which everything else runs, reads and writes rows and can change no table.
--     psql "$SUPERUSER_URL" -v migrate_password="$MIGRATE_PASSWORD" -v database_password="$DATABASE_PASSWORD" -f roles.sql
CREATE ROLE teamfit_migrate LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'migrate_password';
CREATE ROLE teamfit_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'database_password';
ALTER SCHEMA public OWNER TO teamfit_migrate;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO teamfit_app;
ALTER DEFAULT PRIVILEGES FOR ROLE teamfit_migrate IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO teamfit_app;
ALTER DEFAULT PRIVILEGES FOR ROLE teamfit_migrate IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO teamfit_app;
-- What is there already, such as the tables of a TEAMFIT backend, if its owner runs this too.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO teamfit_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO teamfit_app;
