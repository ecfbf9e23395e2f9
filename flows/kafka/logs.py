"""librdkafka's own messages in Python's log, under the name "headrace.kafka" and without secrets."""

import logging
from collections.abc import Mapping
from typing import Any

from headrace.flows.kafka.secrets import without_secrets

LOGGER = "headrace.kafka"


class _Secretless(logging.Filter):
    """Takes secrets of one client's configuration out of what is logged."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = dict(config)

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage(), self._config), None
        return True


def logger_of(config: Mapping[str, Any]) -> logging.Logger:
    """A logger to be given to a client as `logger=`; its messages go on to the logger "headrace.kafka".

    They are handed over when the client is polled. How much there is to hear is librdkafka's `log_level` (syslog's
    levels, 6 by default) and `debug`.
    """
    made = logging.Logger(LOGGER)
    made.parent = logging.getLogger(LOGGER)
    made.addFilter(_Secretless(config))
    return made
