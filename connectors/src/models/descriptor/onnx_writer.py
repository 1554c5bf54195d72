"""Writes ONNX models; standard library only.

Only what the generators of this project need: float tensors stored as raw bytes, nodes with scalar, integer-list and
text attributes, and inputs whose first dimension is dynamic. Field numbers are those of onnx.proto3 (ONNX IR version 8).
The same calls give the same bytes on every machine.
"""

import struct
import sys
from array import array

FLOAT, INT64 = 1, 7
ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_STRING, ATTRIBUTE_INTS = 1, 2, 3, 7


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def chunk(field, payload):
    if isinstance(payload, str):
        payload = payload.encode()
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def floats(values):
    """`values` as little-endian f32 bytes."""
    packed = values if isinstance(values, array) else array("f", values)
    if sys.byteorder == "big":
        packed = array("f", packed)
        packed.byteswap()
    return packed.tobytes()


def tensor(name, dims, values):
    """A float initializer; `values` are numbers in row-major order, an array('f'), or its bytes."""
    raw = values if isinstance(values, bytes) else floats(values)
    size = 4
    for dim in dims:
        size *= dim
    assert len(raw) == size, (name, dims, len(raw))
    return b"".join(number(1, dim) for dim in dims) + number(2, FLOAT) + chunk(8, name) + chunk(9, raw)


def attribute(name, value):
    head = chunk(1, name)
    if isinstance(value, bool) or isinstance(value, int):
        return head + number(3, int(value)) + number(20, ATTRIBUTE_INT)
    if isinstance(value, float):
        return head + varint(2 << 3 | 5) + struct.pack("<f", value) + number(20, ATTRIBUTE_FLOAT)
    if isinstance(value, str):
        return head + chunk(4, value) + number(20, ATTRIBUTE_STRING)
    return head + b"".join(number(8, item) for item in value) + number(20, ATTRIBUTE_INTS)


def node(op, inputs, outputs, **attributes):
    return (
        b"".join(chunk(1, name) for name in inputs)
        + b"".join(chunk(2, name) for name in outputs)
        + chunk(3, outputs[0])
        + chunk(4, op)
        + b"".join(chunk(5, attribute(name, attributes[name])) for name in sorted(attributes))
    )


def value(name, dims):
    """Declares a float input or output; a dimension that is text is dynamic."""
    shape = b"".join(chunk(1, chunk(2, dim) if isinstance(dim, str) else number(1, dim)) for dim in dims)
    return chunk(1, name) + chunk(2, chunk(1, number(1, FLOAT) + chunk(2, shape)))


def model(name, nodes, initializers, inputs, outputs, opset=17):
    graph = (
        b"".join(chunk(1, item) for item in nodes)
        + chunk(2, name)
        + b"".join(chunk(5, item) for item in initializers)
        + b"".join(chunk(11, item) for item in inputs)
        + b"".join(chunk(12, item) for item in outputs)
    )
    return number(1, 8) + chunk(2, "caudal") + chunk(7, graph) + chunk(8, chunk(1, "") + number(2, opset))
