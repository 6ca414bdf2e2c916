"""An attribute that is computed when it is first read: functools.cached_property, without its lock.

That of Python 3.11 is one lock for all objects together, and a forked child may inherit it, held by a thread that it
does not have. Two threads that compute the same attribute at once do no harm here: both find the same.
"""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801 - a decorator, written as `property` is
    """Turn a method into an attribute of that kind. Its object must have a `__dict__`, and may be frozen."""

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object, owner: type) -> Self | Value:
        if instance is None:
            return self
        value: Value = vars(instance).setdefault(self._name, self._compute(instance))
        return value
