"""Words and pictures in, pictures and masks out: paint, edit and segment, with any model and its processor."""

from ming_omni.paint.masks import COLORS, Mask
from ming_omni.paint.picture import Picture
from ming_omni.paint.segment import THRESHOLD, Segmentation, segment
from ming_omni.paint.verbs import Cancelled, Progress, edit, paint

__all__ = [
    "COLORS",
    "THRESHOLD",
    "Cancelled",
    "Mask",
    "Picture",
    "Progress",
    "Segmentation",
    "edit",
    "paint",
    "segment",
]
