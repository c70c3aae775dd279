"""Serve one of the WSGI applications with bjoern. Arguments: application, port."""

import sys

import bjoern
import wsgi

bjoern.run(getattr(wsgi, sys.argv[1]), "127.0.0.1", int(sys.argv[2]))
