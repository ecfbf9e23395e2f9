"""The lookup server beside others that answer the same questions: Feast's clients and server, our own clients, the log.

views.py defines features of every type, rows.py draws rows of them and judges answers by a naive oracle, ways.py asks
in every way there is, wire.py speaks HTTP byte by byte, serving.py runs the server.
"""
