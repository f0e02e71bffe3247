# SPDX-License-Identifier: GPL-2.0-only
"""All that a case may use: the subject that holds the tested memory, and Python over it."""
