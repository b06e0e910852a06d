#!/usr/bin/env bash
# The safety guide's daily backup: everything of the newest day, verified, in every configured destination.
# Takes the options of `velox backup`, such as --config config/system_production.yaml, --date 2024-01-15, --missing, --to DIR.
# From cron, after the close:  5 16 * * 1-5  cd /path/of/the/checkout && ./scripts/backup_databases.sh --config config/my.yaml
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
velox="$here/.venv/bin/velox"
if [ ! -x "$velox" ]; then
  echo "backup_databases: $velox is not there: run make setup in $here" >&2
  exit 1
fi
exec "$velox" backup "$@"
