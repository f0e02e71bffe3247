# SPDX-License-Identifier: GPL-2.0-only
"""Benchmarks: figures measured side by side, in one run on one machine."""
