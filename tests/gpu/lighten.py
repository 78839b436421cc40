"""Takes the weights out of a study's records, so that they can travel: `python -m … FOLDER`.

Predictions and measurements stay, and tables, figures and claims are made from those alone.
"""

import argparse
import json
from pathlib import Path

from safetensors.numpy import load_file, save

from swabench.records.layout import ARRAYS, RECORD
from swabench.records.sealing import sealed
from swabench.system.files import sha256

HEAVY = ("weights/", "statistics/", "trajectory")


def lighten(folder: Path) -> None:
    """Rewrite one record without what is heavy."""
    path = folder / RECORD
    record = json.loads(path.read_text())
    del record["sha256"]
    arrays = load_file(folder / ARRAYS)
    light = {name: values for name, values in arrays.items() if not name.startswith(HEAVY)}
    content = save(light)
    record |= {"holds": sorted(light), "arrays_sha256": sha256(content)}
    (folder / ARRAYS).write_bytes(content)
    path.write_bytes(sealed(record))


def main() -> None:
    """Lighten all records below a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for path in sorted(parser.parse_args().folder.rglob("record.json")):
        lighten(path.parent)


if __name__ == "__main__":
    main()
