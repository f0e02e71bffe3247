# SPDX-License-Identifier: GPL-2.0-only
"""What ends the benchmark."""


class BenchError(Exception):
    """A reason why there can be no figures, in one line for the user."""
