#!/bin/bash
# Make the database on the first start, then serve it. Variables as in the well-known image:
# POSTGRES_USER (default postgres), POSTGRES_PASSWORD (required), POSTGRES_DB (default: the user), PGDATA.
set -euo pipefail
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
: "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"
sockets=${POSTGRES_SOCKETS:-/tmp}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Beside the final folder: a pod that was killed meanwhile starts again from nothing.
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --no-sync
  echo "host all all all scram-sha-256" >> "$PGDATA.new/pg_hba.conf"
  if [ "$database" != postgres ]; then
    echo "CREATE DATABASE \"$database\"" | postgres --single -D "$PGDATA.new" -j postgres > /dev/null
  fi
  rm -rf "$PGDATA"
  mv "$PGDATA.new" "$PGDATA"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories="$sockets"
