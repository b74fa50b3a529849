"""Machine perception: the score of a recogniser on decoded pictures or sounds, against the rate.

After "Machine Perceptual Quality" (Jacobellis et al. 2024). A task is any function (decoded arrays, labels) -> score,
named MODULE:FUNCTION. Labels are a CSV with columns file, label and, where one file holds many (tiny pictures would
measure headers only, so they are coded as contact sheets), x, y, width, height in pixels or start, length in samples.
"""

from __future__ import annotations

import csv
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import laconic
from laconic.tools.metrics import Item

Task = Callable[[list[np.ndarray], list[str]], float]
BOXES = (("y", "height", "x", "width"), ("start", "length"))  # starts and lengths of the axes


def load(name: str) -> Task:
    """Return the function of MODULE:FUNCTION; modules of the current folder are found too. Raises BadInput."""
    module, colon, function = name.partition(":")
    if not colon:
        raise laconic.BadInput(f"--task: found {name!r}, expected MODULE:FUNCTION")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Task = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise laconic.BadInput(f"--task: found {name!r} ({error}), expected MODULE:FUNCTION") from None
    return found


def read_labels(path: Path, files: list[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV of labels. `file` may be left out where there is one file. Raises BadInput."""
    if not path.exists():
        raise laconic.BadInput(f"--labels: found no {path}, expected a CSV with columns file,label")
    with path.open(newline="") as text:
        rows = list(csv.DictReader(text))
    if not rows or "label" not in rows[0]:
        raise laconic.BadInput(f"{path}: found columns {list(rows[0]) if rows else []}, expected file,label")
    for row in rows:
        row.setdefault("file", files[0] if len(files) == 1 else "")
        if row["file"] not in files:
            raise laconic.BadInput(f"{path}: found file {row['file']!r}, expected one of the folder's")
    return rows


def cut(items: dict[str, Item], labels: list[dict[str, str]]) -> tuple[list[np.ndarray], list[str]]:
    """Return the labelled parts of decoded files, and their labels."""
    parts = []
    for row in labels:
        box = next((box for box in BOXES if all(row.get(key) for key in box)), ())
        axes = [slice(int(row[at]), int(row[at]) + int(row[n])) for at, n in zip(box[::2], box[1::2], strict=True)]
        parts.append(items[row["file"]].data[tuple(axes)])
    return parts, [row["label"] for row in labels]


def groceries(pictures: list[np.ndarray], labels: list[str]) -> float:
    """Return the share of 64 x 64 pictures of groceries that a small classifier names right (tools/train_task.py pictures)."""
    return accuracy("groceries", pictures, labels)


def digits(sounds: list[np.ndarray], labels: list[str]) -> float:
    """Return the share of spoken digits at 8 kHz that a small recogniser hears right (tools/train_task.py digits)."""
    return accuracy("digits", sounds, labels)


def accuracy(name: str, arrays: list[np.ndarray], labels: list[str]) -> float:
    """Return the share of arrays whose most likely class is the label."""
    import torch

    from laconic.tools.train_task import load_recogniser

    network, classes, prepare = load_recogniser(name)
    with torch.inference_mode():
        scores: Any = torch.cat([network(prepare(arrays[i : i + 64])) for i in range(0, len(arrays), 64)])
    guesses = [classes[i] for i in scores.argmax(1).tolist()]
    return float(np.mean([guess == label for guess, label in zip(guesses, labels, strict=True)]))
