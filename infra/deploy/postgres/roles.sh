#!/bin/sh
# Run by the image of Postgres when its volume is new.
set -eu
exec psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v migrate_password="$MIGRATE_PASSWORD" -v database_password="$DATABASE_PASSWORD" -f /etc/teamfit/roles.sql
