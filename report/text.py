# SPDX-License-Identifier: GPL-2.0-only
"""What may come out of a log: text that every format can hold, in a size that it can bear."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")  # a terminal's colours and moves
_LINE_END = re.compile(r"\r+\n?")
# What XML 1.0 forbids, and with it the control characters and the non-characters of plane 0
# that it merely discourages; lone surrogates are not even text.
_FORBIDDEN = re.compile(
    "[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]"
)


def clean(text: str) -> str:
    """The text without escape sequences, with \\n line ends, and a replacement character for
    each character that XML, a terminal or UTF-8 chokes on."""
    if text.isascii() and text.isprintable():
        return text
    return _FORBIDDEN.sub("\ufffd", _LINE_END.sub("\n", _ESCAPE.sub("", text)))


def clip(text: str, limit: int) -> str:
    """At most `limit` characters of the text and a note of what is gone: the middle, because a
    log tells most where trouble starts and where it ends."""
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out} characters left out …]\n{text[len(text) - half :]}"


def one_line(text: str, limit: int) -> str:
    """The start of the text as one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
