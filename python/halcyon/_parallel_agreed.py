# SPDX-License-Identifier: Apache-2.0
"""What one rank alone finds wrong with its arguments in Python is an error on every rank."""

import functools
import inspect

from . import _C


class ArgumentTypeError(TypeError, ValueError):
    """An argument of a type that a function of halcyon.parallel does not take."""


def _explained(operation, error):
    """The error's text, with the operation; of a bound function, what it takes and what it got."""
    lines = str(error).split("\n")
    if "incompatible" in lines[0]:
        takes = next((line.strip()[3:] for line in lines if line.strip().startswith("1. ")), "other arguments")
        lines = [f"expected arguments of the types {takes}"]
    text = lines[0].removeprefix("[parallel] ")
    return text if text.startswith("[") else f"[{operation}] {text}"


def refuse(operation, group, error):
    """Raises the error on every rank of the group, all of which call the operation."""
    try:
        _C.parallel.refuse(operation, _explained(operation, error), group)
    except ValueError as refusal:
        if isinstance(error, TypeError):
            raise ArgumentTypeError(str(refusal)) from None
        raise


def collective(checked):
    """Of a function that checks its arguments and returns the call that all ranks then make: the function that makes
    it. Where this rank does not come so far, the others are told."""
    signature = inspect.signature(checked)

    @functools.wraps(checked)
    def function(*args, **kwargs):
        try:
            call = checked(*args, **kwargs)
        except (TypeError, ValueError) as error:
            group = signature.bind(*args, **kwargs).arguments.get("group")  # a TypeError for an unknown keyword
            refuse(checked.__name__, group, error)
        try:
            return call()
        except TypeError as error:  # the bound function takes no such type
            refuse(checked.__name__, signature.bind(*args, **kwargs).arguments.get("group"), error)

    return function
