"""Finds passwords and tokens in addresses, and hides them in whatever people or files get to see.

http://me:secret@host/x               http://***@host/x
s3://bucket/key?X-Amz-Signature=ab12  s3://bucket/key?X-Amz-Signature=***
postgresql://me@host/db               unchanged: a database's user name alone opens nothing
"""

import re

_MASK = "***"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_BARE = re.compile(r"(?<![\w/@:.])[^\s'\"<>/@:]+:[^\s'\"<>/@]+@[\w.-]+")
_NAMED = re.compile(
    r"(?P<name>[?&;](?:[\w.-]*[-_])?(?:password|passwd|pwd|pass|secret|token|signature|sig|api[-_]?key|accesskeyid|"
    r"access[-_]?key|credential|auth)=)(?P<value>[^&#;\s'\"]+)",
    re.IGNORECASE,
)
_USER_ALONE_IS_FINE = ("postgres", "mysql", "mssql", "sqlite", "ssh", "git")


def masked(text: str) -> str:
    """The text with `***` for each account and each named secret in its addresses."""
    text = _ADDRESS.sub(lambda found: _mask_address(found[0]), text)
    return _BARE.sub(lambda found: f"{_MASK}@{found[0].rpartition('@')[2]}", text)


def holds_secret(text: str, *, is_address: bool = False) -> bool:
    """Whether an address in the text has a password or a token.

    Args:
        text: any text, such as an override.
        is_address: the whole text is meant as an address, so `me:secret@host` counts without a scheme, too.
    """
    if any(_mask_address(found) != found for found in _ADDRESS.findall(text)):
        return True
    return is_address and _BARE.search(text) is not None


def without_account(address: str) -> str:
    """The address without `user:password@`: what names the server, for a key."""
    if "://" not in address:
        return address
    scheme, _, rest = _parts(address)
    return scheme + rest


def _mask_address(address: str) -> str:
    scheme, account, rest = _parts(address)
    if account and (":" in account or not scheme.startswith(_USER_ALONE_IS_FINE)):
        address = f"{scheme}{_MASK}@{rest}"
    return _NAMED.sub(lambda named: named["name"] + _MASK, address)


def _parts(address: str) -> tuple[str, str, str]:
    """Scheme with `://`, account without `@` (empty if there is none), and the rest of an address.

    The account ends at the last `@` before the path. An unquoted `/`, `?` or `#` in a password ends that part too
    early (`http://me:pa/ss@host` seems to have the host `me` and the port `pa`), so what looks like a port and is no
    number belongs to an account that ends at the last `@` of all.
    """
    scheme, mark, rest = address.partition("://")
    network = re.split("[/?#]", rest, maxsplit=1)[0]
    port = network.rpartition("]")[2].partition(":")[2]
    at = network.rfind("@")
    if at < 0 and port and not port.isdigit():
        at = rest.rfind("@")
    return (scheme + mark, "", rest) if at < 0 else (scheme + mark, rest[:at], rest[at + 1 :])
