"""Koji's XML-RPC, seen from the hub: marshalling by the koji library itself, named arguments, faults, multicall."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import koji
import koji.xmlrpcplus

#: What the hub can do: method name and the function behind it.
Calls = Mapping[str, Callable[..., Any]]


def answer(calls: Calls, body: bytes, before: Callable[[str], object], extended: bool = False) -> bytes:
    """The XML of the response to the XML of a request; a failing call gives a fault, never an exception.

    ``before`` gets the method first and may refuse by raising; ``extended`` puts whole tracebacks into faults,
    as a hub with KojiTraceback does.
    """

    def work() -> Any:
        params, method = koji.xmlrpcplus.loads(body.decode())
        before(method)
        if method == "multiCall":
            return [_entry(calls, each) for each in params[0]]
        return invoke(calls, method, params)

    return respond(work, extended)


def respond(work: Callable[[], Any], extended: bool = False) -> bytes:
    """The XML of what ``work`` returns, or of the fault that its error is."""
    try:
        return bytes(koji.xmlrpcplus.dumps((work(),), methodresponse=1).encode())
    except Exception as error:  # noqa: BLE001 - a hub answers every error as a fault
        reply = fault_of(error)
        if extended:
            last = f"koji.{koji.convertFault(reply).__class__.__name__}: {reply.faultString}"
            reply = fault(reply.faultCode, "".join(traceback.format_tb(error.__traceback__)) + last)
            reply.faultString = f"Traceback (most recent call last):\n{reply.faultString}\n"
        return bytes(koji.xmlrpcplus.dumps(reply).encode())


def fault(code: int, text: str) -> Any:
    """A fault with one of koji's numbers."""
    return koji.xmlrpcplus.Fault(code, text)


def invoke(calls: Calls, method: str, params: Any) -> Any:
    """Call ``method`` with koji's encoding of named arguments undone. Raises koji's own errors."""
    if method not in calls:
        raise koji.GenericError(f"Invalid method: {method}")
    args, named = koji.decode_args(*params)
    try:
        inspect.signature(calls[method]).bind(*args, **named)
    except TypeError as error:
        raise koji.ParameterError(f"Error calling {method}: {error}") from error
    return calls[method](*args, **named)


def fault_of(error: Exception) -> Any:
    """An error as XML-RPC has it: koji's number for koji's errors, 1 for all else."""
    if isinstance(error, koji.xmlrpcplus.Fault):
        return error
    text = str(error) if isinstance(error, koji.GenericError) else f"{type(error)}: {error}"
    return fault(getattr(error, "faultCode", 1), text)


def _entry(calls: Calls, call: Mapping[str, Any]) -> Any:
    # One call of a multicall: a list of one result, or a dictionary with the fault.
    try:
        return [invoke(calls, call["methodName"], call["params"])]
    except Exception as error:  # noqa: BLE001
        reply = fault_of(error)
        return {"faultCode": reply.faultCode, "faultString": reply.faultString, "traceback": [reply.faultString]}
