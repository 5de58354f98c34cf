"""Arrays in, arrays out: everything that knows no media file, no network protocol and no command line."""
