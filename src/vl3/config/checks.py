"""Small checks that the configuration classes share; each raises a ConfigError that names the value."""

from vl3.errors import ConfigError


def require_positive(owner: str, **values: float) -> None:
    """Raise ConfigError unless every value is above zero."""
    for name, value in values.items():
        if value <= 0:
            raise ConfigError(f"{owner}.{name}={value} must be greater than 0. Set a positive value.")


def require_fraction(owner: str, **values: float) -> None:
    """Raise ConfigError unless every value is from 0 to 1, both included."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{owner}.{name}={value} is not a fraction. Set a value from 0 to 1.")


def require_choice(owner: str, name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ConfigError unless value is one of choices."""
    if value not in choices:
        raise ConfigError(f"{owner}.{name}={value!r} is unknown. Choose one of {', '.join(map(str, choices))}.")
