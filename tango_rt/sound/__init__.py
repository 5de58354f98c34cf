"""What happens to the sound of a file between decoding and its place in time; tango_rt.sound.audio puts it together.

steady        where samples belong, by stamps that wander
stretching    a few samples more or less, unheard
downmix       any channels to one, as loud as the loudest
"""
