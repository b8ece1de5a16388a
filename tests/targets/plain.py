"""Functions, classes and a namespace: every form a target may have."""

import functools
import types
from os.path import join  # not an operation: it was not written here

READ = []


def double(number):
    return number * 2


def _private():
    return "private"


class Kept:
    """A class, with everything that may stand in one."""

    class_attribute = 5

    def __init__(self, base=0, *, step=1):
        self.base, self.step = base, step

    def value(self):
        return [self.base, self.step]

    def _hidden(self):
        return "hidden"

    @staticmethod
    def static():
        return "static"

    @classmethod
    def of_class(cls):
        return cls.__name__

    partial = functools.partialmethod(value)

    @property
    def costly(self):
        READ.append("property")
        return double

    @functools.cached_property
    def costly_once(self):
        READ.append("cached_property")
        return double

    @property
    def broken(self):
        raise RuntimeError("read")

    def read(self):
        return READ

    class Nested:
        def inside(self):
            return "inside"


class Empty:
    pass


space = types.SimpleNamespace(double=double, joined=join, number=5, Kept=Kept)
made = Kept(base=7)
number = 5
