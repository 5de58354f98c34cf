"""Processing of a file's sound after decoding; tango_rt.sound.audio puts the steps together.

steady        where samples belong, by stamps that drift
stretching    a few samples more or less, inaudibly
downmix       any channels to one, as loud as the loudest
"""
