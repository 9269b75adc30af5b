#!/usr/bin/env bash
# run.sh: 'governor gpu run' from a checkout, with or without a bundle for hosts without a network.
#   benchmarks/gpu/run.sh --model 0.6b --out DIR [--archive FILE.tar.gz] [...]   docs/gpu.md
# Environment:
#   BUNDLE   folder that make_bundle.sh has written (env.sh, site.tar.xz); default .gpu/carry
#   PYTHON   interpreter; default python3 with a bundle, else .venv/bin/python
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
BUNDLE=${BUNDLE:-$ROOT/.gpu/carry}
if [ -e "$BUNDLE/env.sh" ]; then
  PYTHON=${PYTHON:-python3}
  # shellcheck source=/dev/null
  . "$BUNDLE/env.sh"
  PLACE=$(mktemp -d)
  trap 'rm -rf "$PLACE"' EXIT
  "$PYTHON" "$ROOT/benchmarks/gpu/place.py" "$PLACE"
  # The folder that a module is run from stays off the path: see place.py.
  export PYTHONPATH=$PLACE:$PYTHONPATH PYTHONSAFEPATH=1
fi
"${PYTHON:-$ROOT/.venv/bin/python}" -m controller_service gpu run \
  --models "$ROOT/benchmarks/gpu/models" "$@"
