"""Finds and loads the user's code, and what in it can be called."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import importlib.util
import inspect
import math
import os
import sys
import threading
import weakref

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Tuple

# What is being loaded. If the target opens a pool meanwhile, nesting.py reads these here, in this process.
own_target = ""
importing = ""  # name of the module, file or target that is being imported
constructing = False
threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # threads that the target started while it was loaded


def load_target(target: str, path: list[str], args: list[Any], kwargs: dict[str, Any], telemetry: Any = None) -> Any:
    """Load ``module:attribute`` or ``file.py:attribute``, or a whole module or file. A class is instantiated, with
    *telemetry* if it takes it. Raises LookupError for a target that does not exist or can have no operations.
    """
    global own_target
    own_target = target
    with noting_import(target):
        found, where = find_target(target, path)
    return make_target(found, target, where, args, kwargs, telemetry)


def make_target(
    found: Any, target: str, where: str, args: list[Any], kwargs: dict[str, Any], telemetry: Any = None
) -> Any:
    """Return the object with the operations. *found* is what *target* names in the module or file *where*."""
    global constructing
    if not inspect.isclass(found):
        return _usable(found, target, where)
    if "telemetry" not in kwargs and accepts_keyword(found, "telemetry"):
        kwargs = dict(kwargs, telemetry=telemetry)
    constructing = True
    try:
        with _noting_threads():
            return found(*args, **kwargs)
    finally:
        constructing = False


@contextlib.contextmanager
def noting_import(what: str) -> Iterator[None]:
    """Note that the user's code *what* is being imported, until the context is left."""
    global importing
    importing = what
    try:
        with _noting_threads():
            yield
    finally:
        importing = ""


@contextlib.contextmanager
def _noting_threads() -> Iterator[None]:
    before = threading.enumerate()
    try:
        yield
    finally:
        threads.update(thread for thread in threading.enumerate() if thread not in before)


def find_target(target: str, path: list[str], load_file: Optional[Callable[[str], Any]] = None) -> Tuple[Any, str]:
    """Return what *target* names, and the module or file it is in. *load_file* loads a file."""
    where, attribute = split_target(target)
    sys.path[:] = path + [entry for entry in sys.path if entry not in path]
    if where.endswith(".py"):
        module = (load_file or load_module_file)(where)
    else:
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name and (where == error.name or where.startswith(error.name + ".")):
                hint = "" if attribute else "; separate a module and a name in it with a colon"
                raise LookupError(
                    "no module named %r (looked for %r in %s)%s" % (error.name, target, ", ".join(sys.path), hint)
                ) from None
            raise
    found = module
    for part in filter(None, attribute.split(".")):
        if not hasattr(found, part) and hasattr(found, "__path__"):  # perhaps a module not imported yet
            name = "%s.%s" % (found.__name__, part)
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        if not hasattr(found, part):
            raise LookupError("%s has no attribute %r; it has %s" % (where, attribute, ", ".join(_offers(found))))
        found = getattr(found, part)
    return found, where


def split_target(target: str) -> Tuple[str, str]:
    """Split a target into its module or file and the attribute, which is empty for a whole module or file."""
    where, colon, attribute = target.rpartition(":")
    return (target, "") if not colon or attribute.endswith(".py") else (where, attribute)


def find_variable(name: str) -> contextvars.ContextVar[Any]:
    """Return the context variable ``module:variable``. Raises LookupError, with what was found instead."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise LookupError("context variable %r was not found: %s" % (name, error)) from error
    if not isinstance(found, contextvars.ContextVar):
        raise LookupError("%r is a %s, not a contextvars.ContextVar" % (name, type(found).__name__))
    return found


def find_variables(names: Iterable[str]) -> Dict[str, contextvars.ContextVar[Any]]:
    """Return the context variables that a pool sends, by name. Raises LookupError, with the remedy."""
    try:
        return {name: find_variable(name) for name in names}
    except LookupError as error:
        text = "%s; make it importable for the workers too, or remove it from the pool's context"
        raise LookupError(text % error) from error


def _usable(found: Any, target: str, where: str) -> Any:
    """Return *found*, unless it can have no operations. Raises LookupError then."""
    needed = "but a target must be a class, an object or a module, whose public methods or functions are called"
    if inspect.ismodule(found):
        if not operations_of(found):
            classes = [name for name in _offers(found) if inspect.isclass(getattr(found, name, None))]
            hint = "; for its class %s, use '%s:%s'" % (classes[0], where, classes[0]) if classes else ""
            raise LookupError("%s has no public functions%s" % (target, hint if where == target else ""))
    elif inspect.isroutine(found):
        raise LookupError("%s is a function, %s; for all functions of its module, use %r" % (target, needed, where))
    elif type(found).__module__ == "builtins":
        raise LookupError("%s is a %s, %s" % (target, type(found).__name__, needed))
    return found


def _offers(found: Any) -> list[str]:
    """Return the public names in *found*. For a module: the names defined in it, or all if it defines none."""
    public = [name for name in dir(found) if not name.startswith("_")]
    here = getattr(found, "__name__", None)
    own = [name for name in public if getattr(getattr(found, name, None), "__module__", None) == here]
    return (own if inspect.ismodule(found) else []) or public or ["nothing public"]


def load_module_file(path: str) -> Any:
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        folder = os.path.dirname(path)
        there = sorted(entry for entry in os.listdir(folder) if entry.endswith(".py")) if os.path.isdir(folder) else []
        raise LookupError("no file %r; its directory has %s" % (path, ", ".join(there) or "no .py files"))
    name = os.path.basename(path)[:-3]
    sys.path.insert(0, os.path.dirname(path))  # so that the file can import its neighbours, as when it is run
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        if "no known parent package" not in str(error):
            raise
        raise LookupError(
            "%s uses relative imports, but a single file has no package: name it as a module of its package, "
            "such as 'package.%s:Name'" % (path, name)
        ) from error
    return module


def accepts_keyword(function: Callable[..., Any], name: str) -> bool:
    """Whether *function* declares a parameter *name* that can be passed by keyword."""
    plain: Any = getattr(function, "__init__" if type(function) is type else "__func__", function)
    if plain is object.__init__ and function.__new__ is object.__new__:  # type: ignore[comparison-overlap]
        return False
    if type(plain) is type(accepts_keyword) and not plain.__dict__:  # the usual case, at a tenth of the cost
        code = plain.__code__
        return name in code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # some builtins have no signature
        return False
    return parameter is not None and parameter.kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )


_METHODS = (staticmethod, classmethod, functools.partialmethod)  # descriptors whose value is callable


class Operation:
    """One public function of the target."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.takes_session = accepts_keyword(function, "session")
        self.takes_telemetry = accepts_keyword(function, "telemetry")
        self.mean_ns = math.inf  # running mean of its duration, once known
        self.kind = "generator" if _is_generator(function) else "function"


def _is_generator(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    if not isinstance(getattr(code, "co_flags", 0), int):
        return False  # the flags of a mock are a mock, in which every flag is set
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def operations_of(target: Any) -> dict[str, Operation]:
    """Return the public callables of *target* by name, without classes. For a module: only those defined in it."""
    names = [name for name in dir(target) if not name.startswith("_")]
    if inspect.ismodule(target):
        names = getattr(target, "__all__", None) or [
            name for name in names if getattr(getattr(target, name), "__module__", None) == target.__name__
        ]
    found = {}
    for name in names:
        static = inspect.getattr_static(target, name, None)
        if hasattr(type(static), "__get__") and not callable(static) and not isinstance(static, _METHODS):
            continue  # a property or the like: reading it would run its code
        value = getattr(target, name, None)
        if callable(value) and not inspect.isclass(value):
            found[name] = Operation(value)
    return found
