"""What the API server may refuse, as exceptions that say what the caller should do."""

from __future__ import annotations

import re

_REQUEST = re.compile(r"^[A-Z]+ /\S*: ")


class ApiError(Exception):
    """A request that the API server did not grant. `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def words(self) -> str:
        """What the server said, without the request that it said it about: for people who read conditions."""
        return _REQUEST.sub("", str(self))


class Transient(ApiError):
    """No answer, a server's failure, or too many requests: try again later, with growing pauses."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after = retry_after


class NotFound(ApiError):
    """There is no such object, or no such namespace to put it into."""


class Conflict(ApiError):
    """The object changed since it was read: read it again and decide anew."""


class AlreadyExists(ApiError):
    """An object of this name exists: read it and see whose it is."""


class Forbidden(ApiError):
    """The operator's role does not allow this. Trying again helps only once someone has changed the role."""


class Invalid(ApiError):
    """The server refuses the object as such: the message names the field. Trying again does not help."""


class Expired(ApiError):
    """A list's continuation is too old: list from the start."""


class NameConflict(Exception):
    """An object that the operator did not make has the name it needs. It is never overwritten.

    A person has to rename or delete that object; the operator looks again by itself.
    """

    def __init__(self, kind: str, namespace: str, name: str, why: str) -> None:
        where = f"{namespace}/{name}" if namespace else name
        super().__init__(
            f"{kind} {where} exists and was not made for this object ({why}): "
            "delete or rename it, Malote does not overwrite what it does not own"
        )
        self.kind, self.namespace, self.name = kind, namespace, name
