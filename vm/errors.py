# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong before a guest runs, told in one line."""

from __future__ import annotations


class VmError(Exception):
    """The run can't go on; the message is one line that says what is wrong and what to do."""


def first(error: BaseException) -> BaseException:
    """The first of what went wrong at the same time."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
