"""The lookup server: an ASGI application over `AsyncClient`. Importing it loads no server and no Arrow."""

from headrace.serving.http.app import LookupApp, lookup_app
from headrace.serving.http.problems import Problem
from headrace.serving.http.pushes import Pushes
from headrace.serving.http.settings import ServerSettings
from headrace.serving.http.watching import ServerWatcher

__all__ = ["LookupApp", "Problem", "Pushes", "ServerSettings", "ServerWatcher", "lookup_app"]
