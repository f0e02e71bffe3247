# SPDX-License-Identifier: GPL-2.0-only
"""Boots kernels in virtual machines and runs the suite in each."""
