"""Speed, beside peers in the same run: `python -m laconic.tools.bench COMMAND`.

COMMAND: `entropy`, `adaptive`, `image DIR`, `lossless DIR`, `sound DIR`.

Rounds go over all contestants in turn, so that a busy machine slows all alike; figures are medians over the rounds. JSON
with --json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import laconic
from laconic import entropy
from laconic.entropy.environment import n_cores
from laconic.tools import coders
from laconic.tools.bench_entropy import Case, bench_adaptive, bench_entropy, rounds
from laconic.tools.bench_lossless import bench_lossless
from laconic.tools.bench_sound import SETTINGS, bench_sound
from laconic.tools.coder import Coder
from laconic.tools.metrics import Absent
from laconic.tools.plan import find_files, read
from laconic.tools.workloads import WORKLOADS

CODERS = {  # at the setting that takes about 0.5 bpp on photos
    "laconic": 45.0,
    "jpeg": 20.0,
    "webp": 20.0,
    "avif": 50.0,
    "jpeg2000": 0.5,
    "cwebp=cwebp -quiet -m 6 -q {q} {in} -o {out}|dwebp -quiet {in} -o {out}": 20.0,
    "cjxl=cjxl {in} {out} -q {q} -e 7 --quiet|djxl {in} {out} --quiet": 40.0,
    "zoo:bmshj2018-hyperprior!random": 4.0,
    "zoo:mbt2018-mean!random": 4.0,
}


def main(argv: list[str] | None = None) -> int:
    """Run one of the benchmarks and print its table."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    coder = commands.add_parser("entropy", help="the entropy coder's backends and peers, in million symbols per second")
    coder.add_argument("--symbols", type=positive, default=1 << 22, help="of a workload; slow contestants code fewer")
    coder.add_argument("--threads", type=positive, nargs="+", default=sorted({1, n_cores()}))
    coder.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    coder.add_argument("--only", nargs="+", metavar="NAME", help="of the contestants; alone, each finds warm caches")
    coder.set_defaults(run=bench_entropy)
    learning = commands.add_parser("adaptive", help="the adaptive models, in million symbols per second")
    learning.add_argument("--symbols", type=positive, default=1 << 20)
    learning.set_defaults(run=bench_adaptive)
    image = commands.add_parser("image", help="picture codecs at about 0.5 bpp, in seconds per picture")
    image.add_argument("folder", type=Path, metavar="DIR")
    image.add_argument("--files", type=positive, default=6, help="the first so many (default: %(default)s)")
    image.set_defaults(run=bench_image)
    exact = commands.add_parser("lossless", help="lossless coding of pictures or sounds: sizes, speed, peers")
    exact.add_argument("folder", type=Path, metavar="DIR")
    exact.add_argument("--efforts", type=int, nargs="+", default=[7], metavar="E")
    exact.add_argument("--max-errors", type=int, nargs="*", default=[], metavar="K", help="near-lossless, too")
    exact.add_argument("--threads", type=positive, help="of ours (default: one per core)")
    exact.add_argument("--alone", action="store_true", help="without peers")
    exact.set_defaults(run=bench_lossless)
    sound = commands.add_parser("sound", help="sound codecs in one thread: bytes, speed in times of real time, peers")
    sound.add_argument("folder", type=Path, metavar="DIR")
    sound.add_argument("--files", type=positive, default=6, help="the first so many (default: %(default)s)")
    sound.add_argument("--only", nargs="+", metavar="NAME", choices=SETTINGS, help=f"of {' '.join(SETTINGS)}")
    sound.set_defaults(run=bench_sound)
    for command in (coder, learning, image, sound):
        command.add_argument("--rounds", type=positive, default=5)
    for command in (coder, learning, image, exact, sound):
        command.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    try:
        cases: list[Case] = args.run(args)
    except (laconic.LaconicError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        args.json.write_text(json.dumps(cases, indent=1) + "\n")
    return 0


def positive(text: str) -> int:
    """Return a number of 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of 1 or more")
    return int(text)


def bench_image(args: argparse.Namespace) -> list[Case]:
    """Code pictures in memory with each codec; programs include their start and their files. Ratios are against ours."""
    medium, files = find_files(args.folder)
    items = [read(str(args.folder / name), medium) for name in list(files)[: args.files]]
    contestants, runs, coded = {}, {}, {}
    for name, rate in CODERS.items():
        try:
            contestants[name] = coder = coders.build(name)
        except Absent as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        coded[name] = [coder.encode(item, rate) for item in items]  # warms up too
        coder.decode(coded[name][0], items[0])
        runs[name] = image_run(coder, rate, items, coded[name])
    times = rounds(runs, args.rounds)
    print(f"seconds per picture, {len(items)} pictures of {args.folder}, median of {args.rounds} rounds")
    first = next(iter(times.values()))
    cases = []
    for name, (encode_s, decode_s) in times.items():
        bpp = 8 * sum(map(len, coded[name])) / sum(item.amount for item in items)
        per = encode_s / len(items), decode_s / len(items)
        ratios = encode_s / first[0], decode_s / first[1]
        label = contestants[name].name
        cases.append(
            {"codec": label, "version": contestants[name].version, "bpp": bpp, "encode_s": per[0], "decode_s": per[1]}
        )
        print(
            f"  {label:32} {bpp:.3f} bpp  encode {per[0]:.3f} (x{ratios[0]:.2f})  decode {per[1]:.3f} (x{ratios[1]:.2f})"
        )
    if "laconic" in times:
        cases.append(share_of_entropy(coded["laconic"], times["laconic"], args.rounds))
    return cases


def image_run(coder: Coder, rate: float, items: list[Any], files: list[bytes]) -> Any:
    """Return the calls that encode all items and decode all files."""
    return (
        lambda: [coder.encode(item, rate) for item in items],
        lambda: [coder.decode(data, item) for data, item in zip(files, items, strict=True)],
    )


def share_of_entropy(files: list[bytes], whole: tuple[float, float], n: int) -> Case:
    """Measure what share of Laconic's time its entropy coder takes, on the same symbols."""
    codec, tables = laconic.Codec(), entropy.gaussian_tables()
    parts = [part for data in files for part in codec.coded(data)]
    streams = [entropy.encode(symbols, rows, tables) for symbols, rows in parts]
    run = (
        lambda: [entropy.encode(symbols, rows, tables) for symbols, rows in parts],
        lambda: [entropy.decode(data, rows, tables) for data, (_, rows) in zip(streams, parts, strict=True)],
    )
    encode_s, decode_s = rounds({"entropy": run}, n)["entropy"]
    shares = encode_s / whole[0], decode_s / whole[1]
    print(f"  entropy coding: {100 * shares[0]:.1f} % of laconic's encode, {100 * shares[1]:.1f} % of its decode")
    return {"codec": "laconic", "entropy_share_of_encode": shares[0], "entropy_share_of_decode": shares[1]}


if __name__ == "__main__":
    sys.exit(main())
