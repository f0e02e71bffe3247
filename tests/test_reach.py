# SPDX-License-Identifier: GPL-2.0-only
"""What counts as uffd-wp code, and what gcov says of it."""

import json

from mutants import reach
from mutants.reach import Line

CODE = """\
/* pte_marker (said in a comment) counts for nothing */
#ifdef CONFIG_PTE_MARKER_UFFD_WP
static inline bool
keeps_uffd_wp(int *pte)
{
	if (!pte)
		goto out;

	return true;
out:
	return false;
}
#endif

static int *plain(int *pte, struct flags *flags)
{
	if (pte_uffd_wp(*pte) &&
		flags->set) {
		pte++; // done
		if (flags->all)
			pte++;
	} else {
		pte--;
	}
	*pte = pte_mkuffd_wp(
		*pte);
	return pte;
}
"""


def test_what_names_uffd_wp_counts_with_what_it_guards() -> None:
    found = reach.uffd_wp(CODE)
    inline = [number for number, function in found.items() if function == "keeps_uffd_wp"]
    plain = [number for number, function in found.items() if function == "plain"]
    assert reach.ranges(inline) == "5-11"
    assert reach.ranges(plain) == "17-21, 25-26"


def test_counts_of_a_line_in_several_functions_add_up() -> None:
    lines = [
        {"line_number": 3, "function_name": "one", "count": 2},
        {"line_number": 3, "function_name": "two", "count": 5},
        {"line_number": 4, "function_name": "one", "count": 0},
    ]
    found = reach.parsed(json.dumps({"files": [{"file": "./mm/a.c", "lines": lines}]}))
    assert found == {("mm/a.c", 3): 7, ("mm/a.c", 4): 0}


def test_the_page_tells_what_is_reached_by_whom() -> None:
    page = reach.page(
        "6.12.1",
        "5 passed",
        "3 passed",
        [
            Line("mm/a.c", "f", 3, ours=1, theirs=0),
            Line("mm/a.c", "g", 7, ours=0, theirs=0),
            Line("mm/a.c", "g", 8, ours=0, theirs=0),
            Line("mm/b.c", "h", 9, ours=0, theirs=4),
        ],
    )
    assert "| **all** | 4 | 1 | 1 |" in page
    assert "| **mm/a.c** | 3 | 1 | 0 |" in page
    assert "| g() | 2 | 0 | 0 |" in page
    neither, theirs_alone = page.partition("## Reached by neither")[2].split("## Reached by the")
    assert "- mm/a.c: g(), 7-8" in neither
    assert "- mm/b.c: h(), 9" in theirs_alone
