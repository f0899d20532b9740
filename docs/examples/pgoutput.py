"""Rows from the messages of PostgreSQL's plug-in pgoutput, in version 1 of its protocol."""

import io
import struct

KINDS = {b"I": "insert", b"U": "update", b"D": "delete"}


class Decoder:
    """Called with each message of one stream, in order: `Relation` names the columns."""

    def __init__(self):
        self._tables = {}

    def __call__(self, payload):
        """Return (kind, table, row), or None where a message has no row."""
        data = io.BytesIO(payload)
        kind = data.read(1)
        if kind == b"R":
            number = _number(data, "I")
            self._tables[number] = _relation(data)
        if kind not in KINDS:
            return None
        table, columns = self._tables[_number(data, "I")]
        values = {}
        while data.read(1):  # K or O: the old row's key or the old row; N: the new row
            values = _values(data)
        return KINDS[kind], table, dict(zip(columns, values, strict=True))


def _relation(data):
    schema, table = _text(data), _text(data)
    data.read(1)  # the replica identity
    columns = []
    for _ in range(_number(data, "H")):
        data.read(1)  # 1 in a column of the key
        columns.append(_text(data))
        data.read(8)  # the type's oid and modifier
    return f"{schema}.{table}", columns


def _values(data):
    """Return the values as text; None for null, and for a TOASTed value that has not changed."""
    kinds = range(_number(data, "H"))
    return [data.read(_number(data, "I")).decode() if data.read(1) == b"t" else None for _ in kinds]


def _number(data, kind):
    return struct.unpack(f">{kind}", data.read(struct.calcsize(f">{kind}")))[0]


def _text(data):
    start = data.tell()
    end = data.getvalue().index(b"\0", start)
    data.seek(end + 1)
    return data.getvalue()[start:end].decode()
