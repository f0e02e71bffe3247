# SPDX-License-Identifier: GPL-2.0-only
"""The streams of a run, merged and told in the formats that others read. Knows no kernel."""
