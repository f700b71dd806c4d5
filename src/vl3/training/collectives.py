"""The few collectives that we need. Data are sent as numbers or JSON text: torch's object collectives use pickle."""

import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


def sum_over_ranks(rows: Sequence[Sequence[float]], device: torch.device) -> list[list[float]]:
    """Element-wise sum of a table over all ranks, in float64."""
    table = torch.tensor(rows, dtype=torch.float64, device=device)
    dist.all_reduce(table)
    return table.tolist()


def gather_json(value: Any, device: torch.device) -> list[Any]:
    """The JSON values of all ranks, in the order of ranks.

    Rank 0 sends `7` and rank 1 `[1, 2]`, 1 and 6 bytes: both exchange their sizes, pad to 6 bytes, and cut again.
    """
    data = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(data)], dtype=torch.int64, device=device))
    longest = max(int(size.item()) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(data)] = data
    received = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(received, padded)
    return [json.loads(bytes(part[: int(size.item())].tolist())) for part, size in zip(received, sizes, strict=True)]
