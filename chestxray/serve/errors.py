"""The error of a request: an HTTP status, a code for programs and a sentence for people."""

from __future__ import annotations


class RequestProblem(Exception):
    """An error with the response ``status`` and ``{"error": {"code", "message"}}``. ``retry_after`` is in seconds.

    The message never repeats what the client sent, which may be about a patient.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
