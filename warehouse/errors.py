"""What is raised when a warehouse cannot do what was asked."""


class WarehouseError(ValueError):
    """A warehouse cannot do what was asked; the message says what to do next."""


class DamagedError(WarehouseError):
    """What was read is not what was written."""


class NewerError(WarehouseError):
    """This version does not know what it has read: a newer one may have written it."""
