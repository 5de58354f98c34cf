"""Arrays in, arrays out: everything that needs no media files, network protocols or command line."""
