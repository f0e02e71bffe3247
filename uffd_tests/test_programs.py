# SPDX-License-Identifier: GPL-2.0-only
"""SPEC.md chapter MODEL: random programs against the executable specification.

`make check` runs a few programs, the same each time; `make fuzz SECONDS=600` ever new ones.
"""

import pytest

from helpers import programs
from helpers.cases import case
from helpers.machine import UFFD
from helpers.programs import FEW, SEED, WORLDS, Disagreement
from helpers.results import RESULTS
from helpers.subject import SubjectLost

SECONDS = 2.0  # an emulated CPU begins in them what it can of the few known programs
CORPUS = RESULTS / "corpus"  # of programs that have failed


@pytest.fixture(params=WORLDS, ids=lambda world: world.name)
def hunt(request, machine, subjects, require):
    """A hunt for programs on which the kernel and the model disagree, in one of the worlds."""
    from helpers.fuzz import Hunt  # hypothesis takes its time to import

    for need in programs.needs(request.param):
        require(need)
    return Hunt(request.param, machine, subjects)


@case("MODEL-1", needs=(UFFD,))
def test_programs_do_as_the_model_says(hunt, subject, pytestconfig, request):
    seconds = pytestconfig.getoption("fuzz")
    try:
        if seconds:
            hunt.run_for(seconds, CORPUS)
        else:
            hunt.run(FEW, seed=SEED, seconds=SECONDS)
    except (Disagreement, SubjectLost):
        hunt.slowly(subject)
        raise
    ran = f"{hunt.programs} programs of {hunt.operations} operations"
    told = f"{ran}; of the model's transitions: {programs.coverage(hunt.taken)}"
    request.node.add_report_section("call", "programs", told)  # evidence in the stream
