#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs the suite for tmt, and tells it of each case in results.json (`result: custom`).
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
make check || status=$?
.venv/bin/python -m report results/latest --quiet --json "$TMT_TEST_DATA/cases.json" || true
jq 'map({
	name: ("/" + (.id | gsub("\\."; "/"))),
	result: ({passed: "pass", xfailed: "pass", skipped: "skip"}[.result] // "fail"),
	note: [.reason | select(. != "")]
})' "$TMT_TEST_DATA/cases.json" > "$TMT_TEST_DATA/results.json"
exit "$status"
