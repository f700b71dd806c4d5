"""One root error and five families, which say who has to act, and two for an end on request.

Every message follows one template: what is wrong (with the values), where, why it matters, what to do.
"""


class Vl3Error(Exception):
    """Root of all errors that vl3 raises on purpose.

    Attributes:
        exit_code: exit status that the command line gives for this family.
        is_retryable: whether running the same step again, unchanged, can succeed.
    """

    exit_code = 1
    is_retryable = False


class ConfigError(Vl3Error):
    """The recipe, an override or an argument is wrong: the person who starts the run acts."""

    exit_code = 2


class DataError(Vl3Error):
    """A dataset, annotation or media file is wrong: the owner of the data acts."""

    exit_code = 3


class ClusterError(Vl3Error):
    """The machine or the platform failed (process lost, port in use, timeout): retry, or ask its owner."""

    exit_code = 4
    is_retryable = True


class GateError(Vl3Error):
    """A promotion was refused because evidence is missing. Not an accident: the message has the table of gates."""

    exit_code = 5


class StorageError(Vl3Error):
    """An artifact is missing, damaged or cannot be written: the owner of the store acts."""

    exit_code = 6


class TerminatedError(Vl3Error):
    """SIGTERM asked for the end: nobody has to act. What was finished is kept, and a new start continues."""

    exit_code = 143


class InterruptError(TerminatedError):
    """Ctrl-C asked for the end (SIGINT)."""

    exit_code = 130


FAMILIES: dict[str, type[Vl3Error]] = {
    family.__name__: family for family in (ConfigError, DataError, ClusterError, GateError, StorageError)
}
"""The families by name, for records that cross a process border as JSON."""
ENDINGS: dict[str, type[Vl3Error]] = {ending.__name__: ending for ending in (TerminatedError, InterruptError)}
"""The ends on request by name."""


def family_name(error: BaseException) -> str:
    """The name of an error's family, or of an end on request; `Vl3Error` for an error that none claims."""
    known = FAMILIES | ENDINGS
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in known), Vl3Error.__name__)
