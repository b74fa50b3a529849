"""The errors of `laconic.entropy.errors`, for users of the library."""

from laconic.entropy.errors import (
    BadFile,
    BadInput,
    LaconicError,
    ModelMissing,
    TargetOutOfReach,
    UnsupportedFile,
)

__all__ = ["BadFile", "BadInput", "LaconicError", "ModelMissing", "TargetOutOfReach", "UnsupportedFile"]
