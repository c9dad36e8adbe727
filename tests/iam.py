"""What IAM policies allow, for calls that no server at hand judges: those with conditions.

It knows the operators of our policies and refuses others, so that none is ever passed over.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

Policy = Mapping[str, Any]
Context = Mapping[str, str]


def allows(
    policies: Iterable[Policy], action: str, resource: str, context: Context | None = None
) -> bool:
    """Whether an action on a resource is allowed by one statement and denied by none.

    Args:
        action: as `s3:GetObject`.
        resource: its ARN.
        context: condition keys and their values in the request, as `aws:RequestTag/name`.
    """
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in policy["Statement"]
        if _concerns(statement, action, resource, context or {})
    }
    return effects == {"Allow"}


def _concerns(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    return (
        _matches(statement["Action"], action)
        and _matches(statement["Resource"], resource)
        and all(
            _holds(operator, key, wanted, context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _matches(patterns: str | list[str], text: str) -> bool:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)


def _holds(operator: str, key: str, wanted: str, context: Context) -> bool:
    if operator == "Null":
        return (key not in context) == (wanted == "true")
    if operator == "BoolIfExists" and key not in context:
        return True
    if operator not in {"StringEquals", "ArnEquals", "Bool", "BoolIfExists"}:
        raise NotImplementedError(operator)
    return context.get(key) == wanted
