"""A call of the system that a file system does not have, or refuses."""

import os


def refuse(number):
    """A function that raises the OSError of this number, whatever its arguments."""

    def call(*arguments):
        raise OSError(number, os.strerror(number))

    return call
