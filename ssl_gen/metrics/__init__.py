"""One file per measurement: arrays in, numbers out; `registry` has all of them by name."""
