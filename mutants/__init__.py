# SPDX-License-Identifier: GPL-2.0-only
"""Kernels broken on purpose, which the suite must catch."""
