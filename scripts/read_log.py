#!/usr/bin/env python3
"""Reads a log without gradus, from docs/log-format.md alone: checks every line, the hash chain, the
sealed segments and the base of a compacted log, and computes the state digest.

    pip install blake3
    scripts/read_log.py DIR            # prints: DIGEST EVENTS
"""

import glob
import json
import struct
import sys
import zlib

from blake3 import blake3

# What depends on the machine and the host, not on the run.
OUTSIDE = {"task_failed", "memory_short", "stage_halted", "pause_requested", "resume_requested",
           "log_repaired", "log_compacted"}


def checked(line):
    """The JSON of a line whose checksum is right."""
    assert line.endswith(b"\n"), "a torn line"
    assert int(line[8:16], 16) == zlib.crc32(line[18:-1]), line[:60]
    return json.loads(line)


def numbers(line, row):
    """What a record adds to the sums behind the digest."""
    body = line[line.index(b'"event":') + len(b'"event":'):-2]
    hasher = blake3(derive_key_context="gradus state digest v2")
    hasher.update(row.get("key", "-").encode())
    hasher.update(blake3(body).digest())
    return struct.unpack("<1024H", hasher.digest(length=2048))


def read_base(log):
    """Floor, hash of the batch before it, sums and events of a compacted log."""
    try:
        lines = open(log + "/base", "rb").readlines()
    except FileNotFoundError:
        return 0, "0" * 64, [0] * 1024, 0
    end, state = checked(lines[-1])["end"], checked(lines[-2])["state"]
    assert end["blake3"] == blake3(b"".join(lines[:-1])).hexdigest(), "base"
    assert open(log + "/base.copy", "rb").read() == b"".join(lines), "base.copy"
    for line in lines[:-2]:
        assert checked(line)["offset"] < end["floor"]
    sums = list(struct.unpack("<1024H", bytes.fromhex(state["digest"])))
    return end["floor"], end["previous"], sums, state["events"]


def main(log):
    assert open(log + "/FORMAT").read() == "3\n", "another format"
    offset, previous, sums, events = read_base(log)
    first = offset
    batch, sealed, keys = b"", None, set()
    for path in sorted(glob.glob(log + "/journal/*.jsonl")):
        if int(path[-26:-6]) < first:
            continue  # left by an interrupted compaction
        lines = open(path, "rb").readlines()
        header = checked(lines[0])
        assert header["format"] == 3 and header["segment"] == offset, path
        assert header["previous"] == previous, path
        assert header["sealed"] == sealed or offset == first > 0, path
        for line in lines[1:]:
            row = checked(line)
            assert row["offset"] == offset, (path, offset)
            if not batch:
                assert row["previous"] == previous, (path, offset)
                assert row.get("key") not in keys, "a key twice"
                keys |= {row["key"]} if "key" in row else set()
            batch, offset = batch + line, offset + 1
            if row["event"]["type"] not in OUTSIDE:
                sums = [(a + b) & 0xFFFF for a, b in zip(sums, numbers(line, row))]
                events += 1
            if row["left"] == 0:
                previous, batch = blake3(batch).hexdigest(), b""
        whole = b"".join(lines)
        sealed = {"segment": header["segment"], "bytes": len(whole),
                  "blake3": blake3(whole).hexdigest()}
    assert not batch, "an unfinished batch"
    print(blake3(struct.pack("<1024H", *sums)).hexdigest(), events)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") + "/log")
