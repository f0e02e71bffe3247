#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# install.sh FOLDER: adds the suite to installed kernel selftests (make -C tools/testing/selftests
# install), so that FOLDER/run_kselftest.sh -c uffd-wp runs it.
set -euo pipefail

if [ $# != 1 ] || [ ! -f "$1/kselftest-list.txt" ]; then
	echo "usage: install.sh FOLDER, one that kselftest_install.sh has filled" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
collection=$1/uffd-wp
mkdir -p "$collection"
ln -sfn "$here/../.." "$collection/suite"
install -m 644 "$here/settings" "$here/config" "$collection"
install -m 755 "$here/uffd-wp.sh" "$collection"
grep -qx uffd-wp:uffd-wp.sh "$1/kselftest-list.txt" ||
	echo uffd-wp:uffd-wp.sh >> "$1/kselftest-list.txt"
