"""The release of Headrace that is installed."""

VERSION = "0.1.0"
