#!/bin/sh
# Prints what compose.yaml wants to know and no repository holds: fresh passwords, and the digests of today's images.
#     (umask 077; sh infra/deploy/secrets.sh > infra/deploy/secrets.env)
# Run it once. For newer images replace the lines that end in _DIGEST, and nothing else: passwords are in the volumes.
set -eu

for name in POSTGRES_PASSWORD MIGRATE_PASSWORD DATABASE_PASSWORD TEAMFIT_SIGNING_KEY \
    BROKER_PASSWORD_ADMIN BROKER_PASSWORD_UPSTREAM BROKER_PASSWORD_API BROKER_PASSWORD_OPERATOR BROKER_PASSWORD_QUOTA \
    BROKER_PASSWORD_GENERATION BROKER_PASSWORD_PROJECTION BROKER_PASSWORD_FAILURES BROKER_PASSWORD_WEBHOOKS \
    BROKER_PASSWORD_SCHEDULE BROKER_PASSWORD_ALL; do
    echo "$name=$(openssl rand -hex 32)"
done
echo "OPENAI_API_KEY=${OPENAI_API_KEY-}"

digest() { docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}'; }
echo "VALKEY_DIGEST=$(digest valkey/valkey:9)"
echo "POSTGRES_DIGEST=$(digest postgres:18)"
echo "PYTHON_DIGEST=$(digest python:3.12-slim)"
# For observe.yaml alone.
echo "PROMETHEUS_DIGEST=$(digest prom/prometheus:v3.5.0)"
echo "TEMPO_DIGEST=$(digest grafana/tempo:2.8.2)"
echo "GRAFANA_DIGEST=$(digest grafana/grafana:12.1.0)"
