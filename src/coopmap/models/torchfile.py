"""Reads the tensors of a file written by ``torch.save`` without ever running code from it.

``torch.load`` either refuses the pickled objects that training files keep beside the weights (``weights_only=True``) or
executes them. Here a restricted unpickler (:mod:`coopmap.models.unpickling`) leaves them out.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from coopmap.models.unpickling import MAX_PICKLE_BYTES, RestrictedUnpickler, TensorRef, check_extent


class TorchFile:
    """An open ``torch.save`` archive, memory-mapped.

    Attributes:
        content: the pickled object; tensors are :class:`~coopmap.models.unpickling.TensorRef`, foreign
            objects :class:`~coopmap.models.unpickling.Inert`.
        ignored: names of the classes and functions that were replaced by inert records.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            ValueError: if the file is not a ``torch.save`` archive, or its pickle is malformed or hostile.
        """
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entry = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
                self._root = entry.filename.removesuffix("data.pkl")
                self._entries = {info.filename: info for info in archive.infolist()}
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > MAX_PICKLE_BYTES:
                    raise pickle.UnpicklingError("the pickle is compressed or too large")
                unpickler = RestrictedUnpickler(io.BytesIO(archive.read(entry)), self._storage_bytes)
                self.content = unpickler.load()
            check_extent(self.content)
        except (zipfile.BadZipFile, StopIteration) as error:
            raise ValueError(f"{path}: not a torch.save archive (older than torch 1.6, truncated?)") from error
        except Exception as error:  # a hostile pickle can fail in any way
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path}: its pickle cannot be read safely: {reason:.200}") from error
        self.ignored = frozenset(unpickler.ignored)
        self._bytes = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)

    def tensor(self, ref: TensorRef) -> Tensor:
        """The tensor that ``ref`` describes; its values are paged in on use.

        Raises:
            ValueError: if the description exceeds its storage.
        """
        try:
            tensor = torch.empty(0, dtype=ref.storage.dtype)
            return tensor.set_(self._storage(ref.storage.key), ref.offset, ref.shape, ref.stride)  # checks the bounds
        except Exception as error:
            raise ValueError(f"{self.path}: damaged tensor {ref!r:.120}: {error}") from error

    def _storage_bytes(self, key: str) -> int:
        return self._entries[f"{self._root}data/{key}"].file_size

    def _storage(self, key: str) -> torch.UntypedStorage:
        entry = self._entries[f"{self._root}data/{key}"]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("compressed storage")
        header = bytes(self._bytes[entry.header_offset : entry.header_offset + 30])
        name_length, padding = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        start = entry.header_offset + len(header) + name_length + padding
        if start + entry.file_size > len(self._bytes):
            raise ValueError("storage beyond the end of the file")
        return self._bytes[start : start + entry.file_size]
