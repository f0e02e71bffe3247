#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Boots kernels and runs the suite in each: ./run-in-vm.sh --help
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)

# install PACKAGE...: as root on a Debian-like machine, else says the command that does
install() {
	local command="apt-get install --yes --no-install-recommends $*"
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "run-in-vm.sh: missing $*: install as root, on Debian: $command" >&2
		exit 2
	fi
	# $command has words to be split
	# shellcheck disable=SC2086
	if ! { $command || { apt-get update && $command; }; } >/dev/null 2>&1; then
		echo "run-in-vm.sh: can't install $*: this failed: $command" >&2
		exit 2
	fi
}

missing=()
command -v make >/dev/null || missing+=(make)
command -v "${CC:-cc}" >/dev/null || missing+=(gcc libc6-dev)
command -v python3 >/dev/null || missing+=(python3-venv python3-dev)
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
PATH=$PATH:/usr/sbin:/sbin command -v mkfs.xfs >/dev/null || missing+=(xfsprogs)
[ ${#missing[@]} = 0 ] || install "${missing[@]}"

# as `make check` makes it, and as quiet as can be
if ! said=$(make --no-print-directory -C "$here" .venv/ready 2>&1); then
	echo "run-in-vm.sh: can't make the environment: $(grep -v '^make' <<<"$said" | tail -n 1)" >&2
	exit 2
fi
cd "$here"
exec .venv/bin/python -m vm "$@"
