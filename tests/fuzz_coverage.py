"""Let atheris make requests, guided by the branches of the module that they reach; hold them against a strict reading.

    make fuzz-coverage SECONDS=60

It needs atheris, which PyPI has for some Pythons on x86-64. A finding is a traceback, and a file crash-… with its bytes, in the current folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["watchdog_app"]):
    from fuzz_requests import SEEDS, arguments, difference
from strict_reading import Limits

LIMITS = Limits(head=1000)


def hold(data: bytes) -> None:
    """Fail if the module and a strict reading differ."""
    assert (what := difference(data, (7,), LIMITS)) == "", what


def main() -> None:
    options = arguments(str(__doc__).partition("\n")[0])
    corpus = tempfile.mkdtemp()
    for number, seed in enumerate(SEEDS):
        (Path(corpus) / str(number)).write_bytes(seed)
    seconds = min(options.seconds, 1e9)
    flags = [f"-max_total_time={seconds:.0f}", f"-seed={options.seed % 2**31}", "-max_len=4096", "-print_final_stats=1"]
    print(f"from {len(SEEDS)} seeds in {corpus}", flush=True)
    atheris.Setup([sys.argv[0], corpus, *flags], hold)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
