"""Unpickles what ``torch.save`` wrote without ever running code from it, in bounded memory and time.

Training files keep pickled configurations and optimizer state beside the weights. Tensors and containers are rebuilt;
every other class becomes an :class:`Inert` record that remembers its name and does nothing. A pickle of a few bytes can
ask for gigabytes, or describe a structure that takes for ever to walk: such files are refused.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import torch

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

MAX_PICKLE_BYTES = 32 << 20
"""Of all but the tensors. The largest released model's is under 1 MB."""
MAX_DEPTH = 64
MAX_VALUES = 5_000_000
"""Of the content, where what is shared counts each time that it is met."""
MAX_DIMENSIONS = 16
MAX_INTEGER_BYTES = 64


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
        if not (isinstance(storage, StorageRef) and _is_size((offset,)) and _is_size(shape) and _is_size(stride)):
            raise pickle.UnpicklingError("the file describes a tensor by something other than numbers")
        return TensorRef(storage, offset, shape, stride)


class _RebuildParameter(_Rebuild):
    """``torch._utils._rebuild_parameter``: the tensor that it wraps."""

    def __call__(self, tensor: Any, *_rest: Any) -> Any:
        return tensor


class _RebuildFromType(_Rebuild):
    """``torch._tensor._rebuild_from_type_v2``: what the wrapped function gives, without subclass or attributes."""

    def __call__(self, function: Any, _type: Any, args: Any, *_rest: Any) -> Any:
        return function(*args) if isinstance(function, _Rebuild) and isinstance(args, tuple) else Inert()


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_DIMENSIONS
        and all(type(number) is int and 0 <= number < 2**63 for number in value)
    )


class _Size(_Rebuild):
    """``torch.Size``."""

    def __call__(self, numbers: Any = (), *_rest: Any) -> Any:
        if not (isinstance(numbers, tuple | list) and _is_size(tuple(numbers))):
            raise pickle.UnpicklingError("the file gives a size that is not a few numbers")
        return tuple(numbers)


class _OrderedDict(_Rebuild):
    """``collections.OrderedDict``: empty, or of pairs."""

    def __call__(self, pairs: Any = (), *_rest: Any) -> Any:
        made: OrderedDict[Any, Any] = OrderedDict()
        for pair in pairs if isinstance(pairs, tuple | list) else ():
            if not (isinstance(pair, tuple | list) and len(pair) == 2):
                raise pickle.UnpicklingError("the file makes a dictionary of something other than pairs")
            _check_key(pair[0])
            made[pair[0]] = pair[1]
        return made


KNOWN_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _OrderedDict(),
    ("torch", "Size"): _Size(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
    ("torch._tensor", "_rebuild_from_type_v2"): _RebuildFromType(),
    **{("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()},
}


PLAIN_KEYS = (str, int, float, bool, bytes, type(None))


def _check_key(key: Any) -> None:
    """Hashing a tuple that holds a tuple twice, and so on for 60 levels, never ends."""
    flat = isinstance(key, tuple) and len(key) <= MAX_DIMENSIONS and all(isinstance(item, PLAIN_KEYS) for item in key)
    if not (isinstance(key, PLAIN_KEYS) or flat or type(key) is Inert or key is Inert):
        raise pickle.UnpicklingError(f"the file has a {type(key).__name__} as a dictionary key or member of a set")


class RestrictedUnpickler(pickle._Unpickler):  # the one in C reserves memory for any memo index
    """Rebuilds containers and tensor references; collects the names of everything else.

    Args:
        stream: the pickle.
        storage_bytes: size of a tensor storage by its key; raises ``KeyError`` if there is none.

    Attributes:
        ignored: names of the classes and functions that were replaced by inert records.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: Any, storage_bytes: Callable[[str], int]) -> None:
        super().__init__(stream)
        self.ignored: set[str] = set()
        self._storage_bytes = storage_bytes

    def find_class(self, module: str, name: str) -> Any:
        """What stands in for a global: one of :data:`KNOWN_GLOBALS`, or :class:`Inert`, which does nothing."""
        if (module, name) in KNOWN_GLOBALS:
            return KNOWN_GLOBALS[module, name]
        self.ignored.add(f"{module}.{name}")
        return Inert

    def persistent_load(self, pid: Any) -> StorageRef:
        """The reference to a storage.

        Raises:
            pickle.UnpicklingError: it is none, or longer than the file.
        """
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(number)):
                if not 0 <= number * dtype.itemsize <= self._storage_bytes(key):
                    raise pickle.UnpicklingError(f"the file has fewer than {number:.3g} values of tensor {key:.20}")
                return StorageRef(key, dtype)
        raise pickle.UnpicklingError(f"the file refers to a {type(pid).__name__} that is no tensor storage")

    def refuse(self) -> None:
        """For operations that ``torch.save`` has no use for, and that reserve memory or call back."""
        raise pickle.UnpicklingError("the file uses an operation that torch.save does not")

    def load_setitem(self) -> None:
        """As pickle does, with a checked key."""
        _check_key(self.stack[-2])
        super().load_setitem()  # type: ignore[misc]  # typeshed does not know it

    def load_setitems(self) -> None:
        """As pickle does, with checked keys."""
        items = self.pop_mark()
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            _check_key(key)
            target[key] = value

    def load_dict(self) -> None:
        """As pickle does, with checked keys."""
        items = self.pop_mark()
        for key in items[::2]:
            _check_key(key)
        self.append(dict(zip(items[::2], items[1::2], strict=True)))

    def load_additems(self) -> None:
        """As pickle does, with checked elements."""
        items = self.pop_mark()
        for item in items:
            _check_key(item)
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(items)

    def load_frozenset(self) -> None:
        """As pickle does, with checked elements."""
        items = self.pop_mark()
        for item in items:
            _check_key(item)
        self.append(frozenset(items))

    def load_long4(self) -> None:
        """As pickle does, up to :data:`MAX_INTEGER_BYTES`."""
        (size,) = struct.unpack("<i", self.read(4))
        if not 0 <= size <= MAX_INTEGER_BYTES:
            raise pickle.UnpicklingError(f"the file has an integer of {size} bytes")
        self.append(int.from_bytes(self.read(size), "little", signed=True))

    for _opcode, _load in (
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict),
        (pickle.ADDITEMS, load_additems),
        (pickle.FROZENSET, load_frozenset),
        (pickle.LONG4, load_long4),
        (pickle.BYTEARRAY8, refuse),
        (pickle.NEXT_BUFFER, refuse),
        (pickle.EXT1, refuse),
        (pickle.EXT2, refuse),
        (pickle.EXT4, refuse),
    ):
        dispatch[_opcode[0]] = _load


def check_extent(content: Any) -> None:
    """Refuse what cannot be walked: cycles, nesting without end, sharing that multiplies.

    Raises:
        pickle.UnpicklingError: see above.
    """
    sizes: dict[int, int] = {}
    path: set[int] = set()
    pending: list[tuple[Any, bool]] = [(content, False)]
    while pending:
        node, is_done = pending.pop()
        if is_done:
            path.discard(id(node))
            sizes[id(node)] = size = 1 + sum(sizes.get(id(child), 1) for child in _children(node))
            if size > MAX_VALUES:
                raise pickle.UnpicklingError(f"the file holds more than {MAX_VALUES} values")
        elif id(node) in path:
            raise pickle.UnpicklingError("the file holds a container within itself")
        elif id(node) not in sizes:
            path.add(id(node))
            if len(path) > MAX_DEPTH:
                raise pickle.UnpicklingError(f"the file is nested more than {MAX_DEPTH} levels deep")
            pending.append((node, True))
            pending += ((child, False) for child in _children(node) if isinstance(child, _CONTAINERS))


_CONTAINERS = (dict, list, tuple)


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, TensorRef):
        return ()
    return node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
