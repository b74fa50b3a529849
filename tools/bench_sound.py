"""Speed of sound codecs in one thread, warm, beside peers in the same run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

from laconic.entropy.errors import BadInput, expect
from laconic.tools import coders, sound_coders
from laconic.tools.bench_entropy import Case, rounds
from laconic.tools.coder import Coder
from laconic.tools.machine import processor
from laconic.tools.metrics import Absent
from laconic.tools.plan import find_files, read

SETTINGS = {  # those of "laconic" and "opus" are near each other in quality on speech
    "laconic": (3.0, 6.0, 12.0),
    "laconic-lossless": (7.0,),
    "opus": (9.0, 12.0, 24.0),
    "mp3": (32.0,),
    "vorbis": (0.0,),
    "flac": (8.0,),
}


def bench_sound(args: argparse.Namespace) -> list[Case]:
    """Code sounds in memory with each codec, in one thread each; times are those of real time."""
    import torch

    torch.set_num_threads(1)
    medium, files = find_files(args.folder)
    expect(medium == "sound", BadInput, str(args.folder), f"{medium}s", "sounds")
    items = [read(str(args.folder / name), medium) for name in list(files)[: args.files]]
    contestants = list(chosen(args.only))
    coded = {key(coder, rate): [coder.encode(item, rate) for item in items] for coder, rate in contestants}  # warms up too
    runs: dict[str, Any] = {}
    for coder, rate in contestants:
        name = key(coder, rate)
        coder.decode(coded[name][0], items[0])
        runs[name] = sound_run(coder, rate, items, coded[name])
    times = rounds(runs, args.rounds)
    seconds = sum(item.amount for item in items)
    print(f"{len(items)} sounds of {args.folder}, {seconds:.1f} s, one thread of {processor()}, median of {args.rounds} rounds")
    return [case(coder, rate, coded[key(coder, rate)], times[key(coder, rate)], seconds) for coder, rate in contestants]


def chosen(names: list[str] | None) -> Iterator[tuple[Coder, float]]:
    """Yield the contestants and their settings; one that is not on this machine is left out, with a word."""
    ours: dict[str, Callable[..., Coder]] = {"laconic": sound_coders.own, "laconic-lossless": sound_coders.own_lossless}
    for name, rates in SETTINGS.items():
        if names and name not in names:
            continue
        try:
            coder = ours[name](threads=1) if name in ours else coders.build(name, "sound")
        except Absent as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for rate in rates:
            yield coder, rate


def key(coder: Coder, rate: float) -> str:
    """Return the name of a codec at a setting."""
    return f"{coder.name} {rate:g}"


def sound_run(coder: Coder, rate: float, items: list[Any], files: list[bytes]) -> Any:
    """Return the calls that encode all items and decode all files."""
    return (
        lambda: [coder.encode(item, rate) for item in items],
        lambda: [coder.decode(data, item) for data, item in zip(files, items, strict=True)],
    )


def case(coder: Coder, rate: float, files: list[bytes], times: tuple[float, float], seconds: float) -> Case:
    """Return the figures of a codec at a setting, and print them."""
    n_bytes = sum(map(len, files))
    payload = sum(map(coder.payload, files)) if coder.payload else n_bytes
    encode_x, decode_x = (seconds / time for time in times)
    kbit, payload_kbit = (8 * n / seconds / 1000 for n in (n_bytes, payload))
    inside = f" ({payload_kbit:.2f} without container)" if coder.payload else ""
    print(
        f"  {key(coder, rate):20} {n_bytes:9} bytes  encode {encode_x:7.1f} x, decode {decode_x:7.1f} x real time"
        f"  {kbit:.2f} kbit/s{inside}"
    )
    return {
        "codec": coder.name,
        "version": coder.version,
        "rate": rate,
        "bytes": n_bytes,
        "kbit_per_s": kbit,
        "payload_kbit_per_s": payload_kbit,
        "encode_x": encode_x,
        "decode_x": decode_x,
    }
