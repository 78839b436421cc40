"""swabench: does averaging weights help here, and by how much?"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("swabench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
