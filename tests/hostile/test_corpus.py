"""What the fuzzer found (`fuzz.py`) is read or refused as `contracts.py` says, and what once broke a contract is not
broken by it again."""

from __future__ import annotations

import corpus
import pytest
from contracts import CONTRACTS

# Of regular expressions that will mean something else some day.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


_QSTAT = (
    b'<job_info><job_list state="running"><JB_job_number>1</JB_job_number><state>r</state><tasks>%s</tasks>'
    b'<JAT_start_time>2024-01-01T00:00:00</JAT_start_time><hard_request name="h_rt">%s</hard_request></job_list>'
    b"</job_info>"
)


@pytest.mark.parametrize("name", CONTRACTS)
def test_what_the_fuzzer_found_is_read_or_refused(name: str) -> None:
    inputs = [data for of, data in corpus.read() if of == name]
    assert inputs
    for data in inputs:
        CONTRACTS[name](data)


def test_the_corpus_is_small_and_of_contracts_that_there_are() -> None:
    assert {name for name, _ in corpus.read()} == set(CONTRACTS)
    assert corpus.FILE.stat().st_size < 300_000


@pytest.mark.parametrize(
    "name, data",
    [
        ("criteria", b"a{99999999999}"),
        ("criteria", b"(" * 5000),
        ("settings_file", b"layout: 0x" + b"f" * 20_000),
        ("answer_of_a_scheduler", b"%-20s%-20s%-20s%-30s\xc2\xb2" % (b"17", b"2", b"17", b"RUNNING")),
        ("answer_of_a_scheduler", b"%-20s%-20s%-20s%-30s%s" % (b"17", b"2", b"17", b"RUNNING", b"9" * 12)),
        *(
            ("answer_of_a_scheduler", _QSTAT % fields)
            for fields in ((b"1-%s" % (b"9" * 30), b"5"), (b"%s" % (b"9" * 5000), b"5"), (b"2", b"\xc2\xb2"))
        ),
        ("answer_of_a_scheduler", b"[" * 100_000),
    ],
)
def test_what_was_found_stays_mended(name: str, data: bytes) -> None:
    CONTRACTS[name](data)
