"""Reads the tensors of a file written by ``torch.save`` without ever running code from it.

Training files keep pickled configurations and optimizer state beside the weights, which ``torch.load`` either refuses
(``weights_only=True``) or executes. Here a restricted unpickler rebuilds tensors and containers; every other class
becomes an :class:`Inert` record that remembers its name and does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

STORAGE_DTYPES = {
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
}


class StorageRef(NamedTuple):
    """A contiguous storage in the archive."""

    key: str
    dtype: torch.dtype


class TensorRef(NamedTuple):
    """A tensor as the pickle describes it; its values are read only on access."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Frozen(type):
    """Metaclass of types whose attributes the pickle cannot replace."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"the file tries to change {cls.__name__}.{name}")


class Inert(metaclass=_Frozen):
    """Stands in for an object of any other class: accepts every pickle operation, and does nothing."""

    __slots__ = ()

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __call__(self, *_args: Any, **_kwargs: Any) -> Inert:
        return Inert()

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _value: Any) -> None:
        """Ignore an element."""

    def extend(self, _values: Any) -> None:
        """Ignore elements."""

    def add(self, _value: Any) -> None:
        """Ignore an element."""


class _Rebuild(metaclass=_Frozen):
    """Callables that stand in for the functions with which torch pickles tensors."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError


class _RebuildTensor(_Rebuild):
    """``torch._utils._rebuild_tensor_v2``."""

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any) -> Any:
        return TensorRef(storage, offset, shape, stride)


class _RebuildParameter(_Rebuild):
    """``torch._utils._rebuild_parameter``: the tensor that it wraps."""

    def __call__(self, tensor: Any, *_rest: Any) -> Any:
        return tensor


class _RebuildFromType(_Rebuild):
    """``torch._tensor._rebuild_from_type_v2``: what the wrapped function gives, without subclass or attributes."""

    def __call__(self, function: Any, _type: Any, args: Any, *_rest: Any) -> Any:
        return function(*args) if isinstance(function, _Rebuild) and isinstance(args, tuple) else Inert()


KNOWN_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
    ("torch._tensor", "_rebuild_from_type_v2"): _RebuildFromType(),
    **{("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Rebuilds containers and tensor references; collects the names of everything else."""

    ignored: set[str]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in KNOWN_GLOBALS:
            return KNOWN_GLOBALS[module, name]
        self.ignored.add(f"{module}.{name}")
        return Inert

    def persistent_load(self, pid: Any) -> StorageRef:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), *_):
                return StorageRef(key, dtype)
        raise pickle.UnpicklingError(f"the file refers to something other than a tensor storage: {pid!r:.80}")


class TorchFile:
    """An open ``torch.save`` archive, memory-mapped.

    Attributes:
        content: the pickled object; tensors are :class:`TensorRef`, foreign objects :class:`Inert`.
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
                entry = next(info.filename for info in archive.infolist() if info.filename.endswith("/data.pkl"))
                self._root = entry.removesuffix("data.pkl")
                self._entries = {info.filename: info for info in archive.infolist()}
                with archive.open(entry) as stream:
                    unpickler = _Unpickler(stream)
                    unpickler.ignored = set()
                    self.content = unpickler.load()
        except (zipfile.BadZipFile, StopIteration) as error:
            raise ValueError(f"{path}: not a torch.save archive (older than torch 1.6, truncated?)") from error
        except Exception as error:  # a hostile pickle can fail in any way
            raise ValueError(f"{path}: its pickle cannot be read safely: {error}") from error
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
