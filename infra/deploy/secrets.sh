#!/bin/sh
# Prints what compose.yaml wants to know and no repository holds: fresh passwords, and the digests of today's images.
#     (umask 077; sh infra/deploy/secrets.sh > infra/deploy/secrets.env)
# Run it once. For newer images replace the lines that end in _DIGEST, and nothing else: passwords are in the volumes.
set -eu

passwords=$(grep -oE '[A-Z_]*PASSWORD[A-Z_]*' "$(dirname "$0")/compose.yaml" | sort -u)
for name in $passwords TEAMFIT_SIGNING_KEY; do
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
