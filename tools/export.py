"""Checkpoint -> weights and card: `python -m laconic.tools.export CHECKPOINT assets/weights/photo-3 --hardware "..."`.

Stores the averaged weights in float16. The integers that decide bits are derived from the stored values by exact
arithmetic (models/exact.py), so the digest of the file covers them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from laconic.models.photo import Photo, PhotoConfig
from laconic.tools.train_image import Config


def main(argv: list[str] | None = None) -> None:
    """Write NAME.safetensors and NAME.json."""
    parser = argparse.ArgumentParser(prog="python -m laconic.tools.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="folder and name, without a suffix")
    parser.add_argument("--hardware", required=True, help="what the training ran on")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--remark", default="", help="how the training went, what more of it would buy")
    parser.add_argument("--measured", default="{}", help="JSON: measured numbers and their command")
    args = parser.parse_args(argv)
    saved = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["model_config"].items()}
    model = Photo(PhotoConfig(**config))
    weights = {k: v.half().contiguous() for k, v in saved["ema"].items()}
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    model.prove_exact()
    out = args.out.with_suffix(".safetensors")
    save_file(weights, out)
    out.chmod(0o644)
    training = {k: v for k, v in saved["config"].items() if k not in ("data", "out", "valid", "list", "save_every")}
    given = {k: Path(v).name if k == "init" else v for k, v in training.items() if v != getattr(Config, k)}
    flags = " ".join(f"--{k}" if v is True else f"--{k} {v}" for k, v in given.items())
    card = {
        "name": args.out.name,
        "medium": "photo",
        "digest": hashlib.sha256(out.read_bytes()).hexdigest(),
        "architecture": {"class": "laconic.models.photo.Photo", "config": config},
        "parameters": sum(v.numel() for v in weights.values()),
        "licence": "Apache-2.0 (WEIGHTS-LICENSE)",
        "data": args.data,
        "steps": saved["step"],
        "seconds": round(saved["elapsed_s"]),
        "hardware": args.hardware,
        "command": f"python -m laconic.tools.train_image --data train.tar --list allowed.txt --out photo.pt {flags}",
        "remark": args.remark,
        "measured": json.loads(args.measured),
    }
    args.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
