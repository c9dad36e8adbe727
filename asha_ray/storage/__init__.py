"""Local disk and S3 behind one small protocol; hashes, records and manifests."""

from asha_ray.storage.base import Entry, Storage, Unfinished, basename, join, parent, storage_of

__all__ = ["Entry", "Storage", "Unfinished", "basename", "join", "parent", "storage_of"]
