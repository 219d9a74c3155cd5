"""The one error of this package."""


class ShardError(Exception):
    """A set, shard or record is not what its manifest or its format says.

    The message is one line: ``place: found, wanted``.
    """
