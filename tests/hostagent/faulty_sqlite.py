"""SQLite on a disk, and in a memory, that fail when they are told to; by ctypes.

SQLite's own seams are used: a file system of our making (sqlite3_vfs) that passes everything on to
the usual one, and an allocator (SQLITE_CONFIG_MALLOC). Both count what is asked of them.
"""

import _sqlite3
import ctypes
import sqlite3
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

FULL, IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, CANTOPEN = 13, 778, 1034, 1546, 14

_lib = ctypes.CDLL(_sqlite3.__file__)  # and so the library that Python's module uses


class _Vfs(Structure):
    pass


class _Methods(Structure):
    pass


class _File(Structure):
    _fields_ = [("methods", POINTER(_Methods))]


# The name is kept by address: SQLite looks at it again, and at what stands behind it.
_Open = ctypes.CFUNCTYPE(c_int, POINTER(_Vfs), c_void_p, POINTER(_File), c_int, POINTER(c_int))
_Write = ctypes.CFUNCTYPE(c_int, POINTER(_File), c_void_p, c_int, c_int64)
_Truncate = ctypes.CFUNCTYPE(c_int, POINTER(_File), c_int64)
_Sync = ctypes.CFUNCTYPE(c_int, POINTER(_File), c_int)
_Vfs._fields_ = [
    ("version", c_int),
    ("file_size", c_int),
    ("longest_path", c_int),
    ("next", c_void_p),
    ("name", c_char_p),
    ("app_data", c_void_p),
    ("open", _Open),
    ("rest", c_void_p * 14),
]
_Methods._fields_ = [
    ("version", c_int),
    ("close", c_void_p),
    ("read", c_void_p),
    ("write", _Write),
    ("truncate", _Truncate),
    ("sync", _Sync),
    ("rest", c_void_p * 13),
]


class Disk:
    """Fails at the operation with number `at` (from 1), once or from then on.

    `synced` is what each file held when it was last synced: all that the loss of power leaves.
    """

    def __init__(self) -> None:
        self.count = 0
        self.at = 0
        self.lasting = False
        self.code = FULL
        self.synced: dict[str, bytes] = {}
        self._paths: dict[int, str] = {}
        self._copies: dict[int, _Methods] = {}  # of the usual methods, by their address
        _lib.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._usual = _lib.sqlite3_vfs_find(None).contents
        self._vfs = _Vfs()
        ctypes.memmove(byref(self._vfs), byref(self._usual), ctypes.sizeof(_Vfs))
        self._vfs.name = b"faulty"
        self._vfs.next = None
        self._vfs.open = _Open(self._open)
        assert _lib.sqlite3_vfs_register(byref(self._vfs), 0) == 0

    def arm(self, at: int, code: int = FULL, *, lasting: bool = False) -> None:
        self.count, self.at, self.code, self.lasting = 0, at, code, lasting
        self.synced.clear()

    def connect(self, path: Path | str, **options: object) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{path}?vfs=faulty", uri=True, **options)  # type: ignore

    def crash(self, directory: Path) -> None:
        """Leave in `directory` what the loss of power would."""
        for path, data in self.synced.items():
            (directory / Path(path).name).write_bytes(data)

    def _fails(self) -> bool:
        self.count += 1
        return bool(self.at) and (self.count >= self.at if self.lasting else self.count == self.at)

    def _open(self, vfs, name, file, flags, out):  # type: ignore[no-untyped-def]
        if self._fails():
            file.contents.methods = None
            return CANTOPEN
        code = self._usual.open(vfs, name, file, flags, out)
        if code == 0:
            usual = file.contents.methods
            address = ctypes.addressof(usual.contents)
            if address not in self._copies:
                self._copies[address] = self._copy(usual.contents)
            file.contents.methods = ctypes.pointer(self._copies[address])
            told = ctypes.string_at(name).decode() if name else ""
            self._paths[ctypes.addressof(file.contents)] = told
        return code

    def _copy(self, usual: _Methods) -> _Methods:
        copy = _Methods()
        ctypes.memmove(byref(copy), byref(usual), ctypes.sizeof(_Methods))

        def write(file, data, size, offset):  # type: ignore[no-untyped-def]
            code = FULL if self.code == FULL else IOERR_WRITE
            return code if self._fails() else usual.write(file, data, size, offset)

        def truncate(file, size):  # type: ignore[no-untyped-def]
            return IOERR_TRUNCATE if self._fails() else usual.truncate(file, size)

        def sync(file, flags):  # type: ignore[no-untyped-def]
            if self._fails():
                return IOERR_FSYNC
            code = usual.sync(file, flags)
            path = self._paths.get(ctypes.addressof(file.contents))
            if code == 0 and path and Path(path).exists():
                self.synced[path] = Path(path).read_bytes()
            return code

        copy.write, copy.truncate, copy.sync = _Write(write), _Truncate(truncate), _Sync(sync)
        return copy


_Malloc = ctypes.CFUNCTYPE(c_void_p, c_int)
_Realloc = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_int)


class _Allocator(Structure):
    _fields_ = [
        ("malloc", _Malloc),
        ("free", c_void_p),
        ("realloc", _Realloc),
        ("rest", c_void_p * 5),
    ]


class Memory:
    """Fails at the allocation with number `at`, once. Before the process has any connection."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0
        self._usual, self._ours = _Allocator(), _Allocator()
        assert _lib.sqlite3_shutdown() == 0
        assert _lib.sqlite3_config(5, byref(self._usual)) == 0
        ctypes.memmove(byref(self._ours), byref(self._usual), ctypes.sizeof(_Allocator))
        usual = self._usual

        def malloc(size):  # type: ignore[no-untyped-def]
            return None if self._fails() else usual.malloc(size)

        def realloc(block, size):  # type: ignore[no-untyped-def]
            return None if self._fails() else usual.realloc(block, size)

        self._ours.malloc, self._ours.realloc = _Malloc(malloc), _Realloc(realloc)
        assert _lib.sqlite3_config(4, byref(self._ours)) == 0
        assert _lib.sqlite3_initialize() == 0

    def arm(self, at: int) -> None:
        self.count, self.at = 0, at

    def _fails(self) -> bool:
        self.count += 1
        return self.count == self.at
