# SPDX-License-Identifier: GPL-2.0-only
"""KSM, as global as ksmd is: for kernels that can be thrown away.

Source: Documentation/admin-guide/mm/ksm.rst. Merged pages are known by their equal frames:
before 6.16 /proc/kpageflags calls any anon page one of KSM.
"""

from __future__ import annotations

from helpers import knobs
from helpers.knobs import SYS_MM
from helpers.region import Region
from helpers.uapi import Advice

_KNOBS = SYS_MM / "ksm"
_EAGER = {_KNOBS / "sleep_millisecs": "1", _KNOBS / "pages_to_scan": "10000", _KNOBS / "run": "1"}


def shared(region: Region) -> bool:
    """Whether all pages of the region are one frame."""
    return len(set(region.frames())) == 1


def merge(region: Region) -> None:
    """Has ksmd merge the pages of the region, which are alike. Raises Unproven when it doesn't."""
    region.advise(Advice.MERGEABLE, region.pages)
    with knobs.set_to(_EAGER):
        knobs.await_that(lambda: shared(region), "ksmd has not merged the pages")
