"""Converts values of types that a codec does not know, or says what to do about values that cannot be sent.

The results are those of msgspec, so that a value arrives the same, whatever is installed for the worker's Python.
No library is imported here to convert a value: where numpy is not loaded, no value is numpy's.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional

ELEMENTS = 1 << 24
"""Most elements of an array that is sent as a list, which takes up to 40 bytes for each."""
MSGPACK = "codec='auto' with msgpack installed for the workers' Python"
_OF_JSON = (dict, list, tuple, str, int, float, type(None))
_PLAIN: Dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: bytes,
}


def convert(value: Any) -> Any:
    """Return what *value* is sent as. Raises TypeError, with the remedy, for a value that cannot be converted."""
    for made in (_convert_numpy, _convert_subclass, _convert_record, _convert_standard_library):
        form = made(value)
        if form is not None:
            return form[0]
    raise conversion_error(value, "there is no conversion for %s objects" % _name(value))


def convert_fully(value: Any) -> Any:
    """As `convert`, for an encoder that calls its hook only once: the result needs no further conversion."""
    while True:
        form = convert(value)
        if isinstance(form, (*_OF_JSON, bytes)) or type(form) is type(value):
            return form
        value = form


def convert_for_json(value: Any) -> Any:
    """As `convert`, for JSON. Raises TypeError also for values that would arrive changed, but not with msgpack."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise conversion_error(value, "JSON has no bytes", msgpack=True)
    datetime = sys.modules.get("datetime")
    if datetime is not None and isinstance(value, datetime.datetime) and value.utcoffset() is not None:
        raise conversion_error(value, "JSON has no datetimes with a zone", msgpack=True)
    return convert(value)


def check_string_keys(message: Any, *, carried: bool = True) -> None:
    """Raise TypeError for a key in any dict that is no string: JSON would silently turn it into one.

    *carried*: JSON could encode *message*. Then its values can be converted for the search, and none contains itself.
    """
    containers: List[Any] = [[message]]
    seen = set()
    for container in containers:
        if id(container) in seen:
            continue
        seen.add(id(container))
        items = container
        if isinstance(container, dict):
            for key in container:
                if not isinstance(key, str):
                    problem = "a dict has the key %.80r, but keys in JSON must be strings" % (key,)
                    raise conversion_error(key, problem, msgpack=_can_be_key(key))
            items = container.values()
        for item in items:
            known = isinstance(item, _OF_JSON) or not carried
            form = item if known else convert_for_json(item)
            if isinstance(form, (dict, list, tuple)):
                containers.append(form)


def conversion_error(value: Any, problem: str, *, msgpack: bool = False) -> TypeError:
    """Return an error with the *problem* of *value* and the remedy. *msgpack*: msgpack carries the value."""
    codecs = [MSGPACK] if msgpack else []
    if _can_be_pickled(value):
        codecs.insert(0, "codec='pickle'")
    if hasattr(type(value), "__next__") or hasattr(type(value), "__aiter__"):
        return TypeError("%s; convert it to a list, or use stream() to call the operation that returns it" % problem)
    return TypeError("%s; %s" % (problem, remedy(codecs)))


def remedy(codecs: list[str]) -> str:
    """Return the remedy for a value that these *codecs* carry."""
    *ways, last = ["convert it", *("use " + codec for codec in codecs)]
    return ", ".join(ways) + ", or " + last if ways else last


def _can_be_pickled(value: Any) -> bool:
    """Whether pickle could carry *value* to the other side, as far as this side knows."""
    import pickle  # hardly ever needed

    class Nowhere:
        def write(self, piece: bytes) -> int:
            return len(piece)

    try:
        pickle.Pickler(Nowhere(), 4).dump(value)
    except (Exception, SystemExit):
        return False
    return type(value).__module__ != "__main__"  # the other side has another __main__


def _can_be_key(key: Any) -> bool:
    """Whether *key*, carried by msgpack, is still a valid key where it arrives."""
    if key is None or isinstance(key, (str, int, float, bytes)):
        return True
    if isinstance(key, (tuple, frozenset)):
        return all(map(_can_be_key, key))
    try:
        form = convert(key)
    except TypeError:
        return False
    return not isinstance(form, (dict, list)) and _can_be_key(form)


# -- the kinds: each function returns a tuple of one converted value, or None for another kind ----------------------


def _convert_subclass(value: Any) -> Any:
    for kind, plain in _PLAIN.items():
        if isinstance(value, kind):
            return (plain(value),)
    return (list(value),) if isinstance(value, (set, frozenset)) else None


def _convert_record(value: Any) -> Any:
    """Convert an object with named fields to a dict."""
    kind = type(value)
    if hasattr(kind, "model_dump"):  # a pydantic model, or an object with its interface
        try:
            return (value.model_dump(mode="json"),)
        except ValueError as error:
            raise conversion_error(value, "%s cannot be written as JSON: %s" % (_name(value), error)) from error
    if hasattr(kind, "__struct_config__"):  # a msgspec Struct, whose fields may be renamed, omitted or tagged
        msgpack = sys.modules["msgspec"].msgpack
        return (msgpack.decode(msgpack.encode(value, enc_hook=convert_fully)),)
    names: Optional[Any] = None
    if hasattr(kind, "__dataclass_fields__"):
        names = [field.name for field in sys.modules["dataclasses"].fields(value) if _holds(value, field.name)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__ if field.name[0] != "_" and _holds(value, field.name)]
    if names is None:
        return None
    fields: Dict[str, Any] = {name: getattr(value, name) for name in names}
    return (fields,)


def _holds(value: Any, name: str) -> bool:
    """Whether the object itself holds a value for the field, as msgspec requires, and not only its class."""
    in_slot = hasattr(type(getattr(type(value), name, None)), "__set__")
    return hasattr(value, name) if in_slot else name in getattr(value, "__dict__", ())


def _convert_standard_library(value: Any) -> Any:
    datetime, decimal, enum, uuid = map(sys.modules.get, ("datetime", "decimal", "enum", "uuid"))
    if enum is not None and isinstance(value, enum.Enum):
        return (value.value,)
    if decimal is not None and isinstance(value, decimal.Decimal):
        return (str(value),)
    if uuid is not None and isinstance(value, uuid.UUID):
        return (str(value),)
    if datetime is None:
        return None
    if isinstance(value, datetime.timedelta):
        return (_duration(value),)
    if isinstance(value, datetime.datetime) and value.utcoffset() is not None:  # of a subclass
        time = value.timetz()
        return (datetime.datetime.combine(datetime.date(value.year, value.month, value.day), time),)
    if isinstance(value, (datetime.date, datetime.time)):
        text = value.isoformat()
        return (text[:-6] + "Z" if text.endswith("+00:00") else text,)
    return None


def _duration(value: Any) -> str:
    """Return a timedelta in the form of ISO 8601."""
    if value.days < 0:
        return "-" + _duration(-value)
    days = "%dD" % value.days if value.days or not value else ""
    seconds = "%d" % value.seconds
    if value.microseconds:
        seconds += (".%06d" % value.microseconds).rstrip("0")
    return "P" + days + ("T%sS" % seconds if seconds != "0" else "")


def _convert_numpy(value: Any) -> Any:
    numpy = sys.modules.get("numpy")
    array, scalar = (getattr(numpy, name, ()) for name in ("ndarray", "generic"))  # it may be half imported
    if not isinstance(value, (array, scalar)):
        return None
    if value.size > ELEMENTS:
        text = "an array of %d elements is too large for a list (%d): send value.tobytes(), or use codec='pickle'"
        raise TypeError(text % (value.size, ELEMENTS))
    form = value.tolist()
    _refuse_bare_times(value)
    return None if isinstance(form, scalar) else (form,)  # a longdouble stays what it is


def _refuse_bare_times(value: Any) -> None:
    """Raise TypeError for times finer than microseconds or beyond Python's range: numpy turns them into integers."""
    for name in value.dtype.names or ():
        _refuse_bare_times(value[name])
    if value.dtype.kind in "mM" and int in map(type, value.ravel().tolist()):
        raise conversion_error(value, "values of %s would arrive as plain integers" % value.dtype)


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)
