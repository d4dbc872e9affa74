"""`python -m tests.fuzz TARGET CORPUS [libFuzzer's options]`: one target under atheris."""

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["hostagent", "netemu"]):
    from tests.fuzz.targets import CORPUS, TARGETS

name, folder, *options = sys.argv[1:]
for number, data in enumerate(CORPUS[name]):
    (Path(folder) / f"seed-{number}").write_bytes(data)
atheris.Setup([sys.argv[0], folder, *options], TARGETS[name])
atheris.Fuzz()
