"""Damaged samples of tar shards, and a plan whose digests are those of the damaged bytes. All follows from a seed."""

import hashlib
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

from tests.support.mutations import mutated
from tests.support.plans import make_rows, write_dataset
from vl3.data.build.shards import ShardSpan
from vl3.data.plan.stage_plan import Pack, PlannedSample, StagePlan

_BLOCK_BYTES = 512
_FIELDS = {
    "name": (0, 100),
    "size": (124, 12),
    "time": (136, 12),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "prefix": (345, 155),
}
_VALUES = (
    b"77777777777\0",
    b"\x80" + struct.pack(">Q", 2**62) + b"\0\0\0",
    b"\xff" * 12,
    b"-1\0",
    b"00000000000\0",
    b"../../etc/passwd",
    b"/etc/passwd\0",
    b"0000001000\0",
)
_TYPES = b"0123456789gxLKSDVXN\0\xff"


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedPlan:
    """A sample a step, each with the digest of the bytes that are there: as if the damage had been planned."""

    samples: Sequence[PlannedSample]

    @property
    def facts(self) -> SimpleNamespace:
        return SimpleNamespace(usable_samples=self.steps)

    @property
    def steps(self) -> int:
        return len(self.samples)

    def deal(self, step: int, rank: int, world_size: int) -> list[Pack]:
        return [Pack(samples=(self.samples[step],), length_tokens=0, visual_tokens=0, cost=1.0)]


def mutated_sample(data: bytes, other: bytes, seed: str) -> bytes:
    """The bytes of a sample after a change: any that media know, or one of a tar header that has a right checksum."""
    rng = random.Random(f"shard {seed}")
    return _edit_tar(bytearray(data), rng) if rng.random() < 0.6 else mutated(data, other, seed)


def write_mutated(folder: Path, samples: Sequence[PlannedSample], out: Path, count: int) -> SignedPlan:
    """A dataset of `count` damaged samples in `out`, and the plan that has their digests."""
    contents = []
    for sample in samples:
        data = (folder / sample.span.shard).read_bytes()
        contents.append(data[sample.span.offset_bytes : sample.span.offset_bytes + sample.span.length_bytes])
    planned, shard = [], bytearray()
    for number in range(count):
        data, other = contents[number % len(contents)], contents[(number * 7 + 1) % len(contents)]
        damaged = mutated_sample(data, other, f"{number}")
        digest = hashlib.sha256(damaged).hexdigest()
        span = ShardSpan(shard="shard-000000.tar", offset_bytes=len(shard), length_bytes=len(damaged), sha256=digest)
        planned.append(PlannedSample(dataset=0, row=number, span=span))
        shard += damaged
    write_dataset(out, make_rows(count))
    (out / "shard-000000.tar").write_bytes(bytes(shard))
    return SignedPlan(samples=planned)


def samples_of(plan: StagePlan) -> list[PlannedSample]:
    """Each sample of a plan once."""
    packs = (pack for step in range(plan.steps) for pack in plan.packs(step))
    return list({sample.row: sample for pack in packs for sample in pack.samples}.values())


def with_wrong_digests(plan: SignedPlan) -> SignedPlan:
    """The same plan, but each sample with the digest of another."""
    digests = [sample.span.sha256 for sample in plan.samples]
    turned = zip(plan.samples, [*digests[1:], digests[0]], strict=True)
    return SignedPlan(samples=[replace(one, span=replace(one.span, sha256=digest)) for one, digest in turned])


def _edit_tar(data: bytearray, rng: random.Random) -> bytes:
    headers = [at for at in range(0, len(data) - _BLOCK_BYTES, _BLOCK_BYTES) if data[at + 257 : at + 262] == b"ustar"]
    for at in rng.sample(headers, k=min(len(headers), rng.choice((1, 1, 2)))):
        start, length = _FIELDS[name := rng.choice(list(_FIELDS))]
        value = bytes([rng.choice(_TYPES)]) if name == "type" else rng.choice(_VALUES)[:length]
        data[at + start : at + start + len(value)] = value
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + _BLOCK_BYTES])
    if rng.random() < 0.3:  # the annotation, of the same length
        places = [at for at in range(len(data)) if data[at : at + 1] in b'{}[]":,'][:200]
        data[rng.choice(places)] = rng.choice(b'{}[]":,0-e\\\x00\xff')
    return bytes(data)
