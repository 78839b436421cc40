"""A campaign of faults: kills, failing writes, damaged files, many processes (`make torture`)."""
