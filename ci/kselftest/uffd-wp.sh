#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# The suite as one kernel selftest: KTAP on standard output, exit status 0, 1 or 4 (all skipped).
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/suite" || exit 1

make --no-print-directory check >&2
exec .venv/bin/python -m report results/latest
