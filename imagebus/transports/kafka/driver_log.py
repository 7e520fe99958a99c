"""librdkafka's log, which shows no secret. The scripts write it with --verbose, where the file sets `debug`."""

from __future__ import annotations

import logging
import re

from imagebus.transports.kafka.entries import Settings

log = logging.getLogger("imagebus.transports.kafka.driver")
_ours = logging.getLogger(__name__)
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")  # a JSON web token, as a login's answer has it


class _Redacting(logging.Filter):
    """Keeps out the warnings that nobody needs, and out of each line the secrets of all files."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Settings] = []

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        # One file holds the settings of producers and consumers, and each warns that it ignores the other's.
        if text.startswith("CONFWARN"):
            return False
        for theirs in self.files:
            text = theirs.redact(text)
        record.msg, record.args = _TOKEN.sub("***", text), None
        return True


_redacting = _Redacting()
log.addFilter(_redacting)


def prepare(theirs: Settings) -> None:
    """Before clients log: hide the secrets of a file from now on, and show the log if it asks for one."""
    if theirs not in _redacting.files:
        _redacting.files.append(theirs)
    if "debug" in theirs and _ours.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.DEBUG)  # the scripts keep it silent otherwise: its errors are reported anyway
