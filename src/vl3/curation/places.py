"""What a curation keeps of its parts between steps: listings and states, below one URI.

    listings/<input>/lines-000007.parquet     key, where, sha256, text, size and problem of each image
    states/<key of a round>/lines-000007.parquet   status, step, value and rule of each image

Both are pure functions of what their names say, so whoever makes one twice makes the same bytes.
"""

import pyarrow as pa

from vl3.curation.rounds import Verdicts
from vl3.curation.table import parquet_bytes, read_parquet
from vl3.store.objects import Store, open_store
from vl3.store.uris import join_uri

STATE_COLUMNS = ("status", "step", "value", "rule")


class Places:
    """Listings and states. It is sent to other processes."""

    def __init__(self, uri: str, input_key: str) -> None:
        """Name the place.

        Args:
            uri: file:// or s3:// URI.
            input_key: digest of the input.
        """
        self.uri, self.input_key = uri, input_key

    def listing(self, part: str) -> pa.Table | None:
        """The images of a part; None if it was not read to its end yet."""
        data = self._listings().read(f"{part}.parquet")
        return None if data is None else read_parquet(data, f"{self.uri}/listings/{part}")

    def require_listing(self, part: str) -> pa.Table:
        """The images of a part that was read."""
        listing = self.listing(part)
        assert listing is not None, f"{part} was not read"
        return listing

    def write_listing(self, part: str, table: pa.Table) -> None:
        """Note the images of a part."""
        self._listings().write(f"{part}.parquet", [parquet_bytes(table)])

    def state(self, key: str, part: str) -> Verdicts | None:
        """What became of the images of a part by the end of a round; None if that is not known yet."""
        data = self._states(key).read(f"{part}.parquet")
        if data is None:
            return None
        table = read_parquet(data, f"{self.uri}/states/{key}/{part}")
        columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in STATE_COLUMNS}
        return Verdicts(**{name: column.astype(object) for name, column in columns.items()})

    def require_state(self, key: str, part: str) -> Verdicts:
        """What became of the images of a finished part."""
        state = self.state(key, part)
        assert state is not None, f"{part} is not finished"
        return state

    def has_state(self, key: str, part: str) -> bool:
        """Whether a part is finished."""
        return self._states(key).exists(f"{part}.parquet")

    def write_state(self, key: str, part: str, verdicts: Verdicts) -> None:
        """Finish a part."""
        table = pa.table({name: pa.array(getattr(verdicts, name).tolist(), pa.string()) for name in STATE_COLUMNS})
        self._states(key).write(f"{part}.parquet", [parquet_bytes(table)])

    def forget_states(self, key: str) -> None:
        """Remove what became of all images by the end of a round; their scores stay."""
        states = self._states(key)
        for name in states.list():
            states.delete(name)

    def _listings(self) -> Store:
        return open_store(join_uri(self.uri, "listings", self.input_key))

    def _states(self, key: str) -> Store:
        return open_store(join_uri(self.uri, "states", key))
