"""What the campaign's commands leave out, so that thousands of them take no hours.

They write the same files in the same order as a user's. But no picture is drawn, as that takes
most of a small study's time, and ResNet-50 is narrow, so that weights have 10 MB, not 60.
"""

from swabench.analysis import figures
from swabench.training import backbone
from tests.networks import narrow_resnet50

NOT_DRAWN = b"not drawn"


def install() -> None:
    """Put them in place, in this process alone."""
    figures.render = lambda *_: NOT_DRAWN
    backbone.resnet50 = narrow_resnet50  # type: ignore[attr-defined]  # imported there
