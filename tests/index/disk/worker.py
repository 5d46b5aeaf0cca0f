"""One of several workers: build the index of `test_build`, and write out the first row of each shard it encodes."""

import sys
import time
from pathlib import Path

from tests.index.disk.test_build import SPEC, VECTORS

from retrograd.index.disk.build import build_version

root, seconds = Path(sys.argv[1]), float(sys.argv[2])


def encode(first: int, stop: int):
    sys.stdout.write(f"{first}\n")
    sys.stdout.flush()
    for start in range(first, stop, 2):
        time.sleep(seconds)
        yield VECTORS[start : min(start + 2, stop)]


sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
build_version(root, SPEC, encode)
