"""Whole data sets: shards of .lac files in tars that webdataset reads, with an index of each (docs/dataset.md).

    import laconic.dataset
    laconic.dataset.pack("photos", "packed", quality=60)
    laconic.dataset.open("packed")["cats/a.png"].decode()

Importing it loads neither torch nor fsspec: they come with the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.dataset.opened import Item, Opened, open
    from laconic.dataset.records import Failure, Manifest, Member, Shard, ShardIndex, Side
    from laconic.dataset.runner import pack
else:
    _LAZY = {
        "Failure": "records",
        "Item": "opened",
        "Manifest": "records",
        "Member": "records",
        "Opened": "opened",
        "Shard": "records",
        "ShardIndex": "records",
        "Side": "records",
        "open": "opened",
        "pack": "runner",
    }

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            from importlib import import_module

            return getattr(import_module(f"laconic.dataset.{_LAZY[name]}"), name)
        raise AttributeError(f"module 'laconic.dataset' has no attribute {name!r}")


__all__ = ["Failure", "Item", "Manifest", "Member", "Opened", "Shard", "ShardIndex", "Side", "open", "pack"]
