"""What of the training state a rank has in its engine, and the copy of its own share in host memory.

DeepSpeed holds fp32 masters and AdamW's two moments: one tensor per parameter without ZeRO, one flat tensor per group
of parameters otherwise. A snapshot copies whole flat tensors and is cut into parameters only when it is written.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from vl3.training.fragments import KINDS, MOMENTS, NUMBER_BYTES, WEIGHTS, Piece, even_share, partition_slice
from vl3.training.optimizer_groups import NamedParameters


class EngineState:
    """The masters and moments that a rank's engine holds, as flat tensors and the pieces of parameters in them.

    Only this module knows where DeepSpeed keeps them. The groups' hyperparameters are not part of it: they are set by
    name from the recipe whenever an engine is made (vl3.training.optimizer_groups).
    """

    def __init__(self, engine: Any, named: NamedParameters) -> None:
        """`engine`: DeepSpeed's engine; `named`: every trained parameter by name."""
        self._engine = engine
        self.shapes = {name: tuple(getattr(parameter, "ds_shape", parameter.shape)) for name, parameter in named}
        """Whole shape of every trained parameter, the same on every rank."""
        self.is_replicated = engine.zero_optimization_stage() == 0
        """Whether every rank has everything."""
        self.flats: list[Tensor] = []
        """The masters, which are AdamW's parameters."""
        self.pieces: list[Piece] = []
        """What this rank has of the parameters."""
        names = {parameter: name for name, parameter in named}
        match engine.zero_optimization_stage():
            case 0:
                self._take_masters(named)
            case 1 | 2:
                self._take_partitions(names)
            case _:
                self._take_slices(names)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.flats[0].device

    @property
    def sizes(self) -> dict[str, int]:
        """How many values each trained parameter has."""
        return {name: torch.Size(shape).numel() for name, shape in self.shapes.items()}

    def owned(self, rank: int, world_size: int) -> list[Piece]:
        """The pieces that a rank writes, so that all ranks together write each value once."""
        return even_share(self.pieces, rank, world_size) if self.is_replicated else self.pieces

    def tensor(self, kind: str, flat: int) -> Tensor:
        """The values of a kind that belong to a flat tensor, as a row."""
        master = self.flats[flat]
        found = master if kind == WEIGHTS else self._engine.basic_optimizer.state[master][kind]
        return found.detach().view(-1)

    @property
    def step_count(self) -> int:
        """AdamW's step counter, which it uses to correct the bias of its moments; 0 before its first step."""
        return next((int(state["step"].item()) for state in self._engine.basic_optimizer.state.values()), 0)

    def make_moments(self, step_count: int) -> None:
        """Make AdamW's state as its first step would, so that moments can be written into it."""
        for flat in self.flats:
            self._engine.basic_optimizer.state[flat] = {
                "step": torch.tensor(float(step_count), dtype=torch.float32, device=flat.device),
                **{kind: torch.zeros_like(flat) for kind in MOMENTS},
            }

    @torch.no_grad()
    def use_weights(self) -> None:
        """Give the model the weights of the masters, after these were written. Every rank must call it."""
        optimizer = self._engine.optimizer
        match self._engine.zero_optimization_stage():
            case 0:
                for parameter, master in _masters(self._engine).items():
                    if master is not parameter:
                        parameter.copy_(master)
            case 1 | 2:
                optimizer.update_lp_params()
            case _:
                flats = zip(optimizer.fp16_partitioned_groups_flat, optimizer.fp32_partitioned_groups_flat, strict=True)
                for low, high in flats:
                    low.data.copy_(high.data)
                if optimizer.persistent_parameters:  # small parameters that ZeRO 3 keeps whole on every rank
                    optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
                    optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)

    def _take_masters(self, named: NamedParameters) -> None:
        masters = _masters(self._engine)
        for flat, (name, parameter) in enumerate(named):
            self.flats.append(masters[parameter])
            self.pieces.append(Piece(name=name, start=0, stop=parameter.numel(), flat=flat, offset=0))

    def _take_partitions(self, names: dict[nn.Parameter, str]) -> None:
        """ZeRO 1 and 2: DeepSpeed says which values of a parameter this rank has, and where (with its alignment)."""
        optimizer = self._engine.optimizer
        if hasattr(optimizer, "fp32_groups_flat_partition"):  # DeepSpeed's BF16_Optimizer, for ZeRO 1 alone
            self.flats, groups = list(optimizer.fp32_groups_flat_partition), optimizer.bf16_groups
        else:
            self.flats, groups = list(optimizer.single_partition_of_fp32_groups), optimizer.bit16_groups
        for flat, group in enumerate(groups):
            for parameter in group:
                mapping = parameter._hp_mapping
                if mapping is not None:
                    low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
                    stop = low.start + low.numel
                    piece = Piece(name=names[parameter], start=low.start, stop=stop, flat=flat, offset=high.start)
                    self.pieces.append(piece)

    def _take_slices(self, names: dict[nn.Parameter, str]) -> None:
        """ZeRO 3: equal slices of every parameter, one after the other."""
        optimizer = self._engine.optimizer
        self.flats = list(optimizer.fp32_partitioned_groups_flat)
        for flat, group in enumerate(optimizer.fp16_groups):
            offset, rank = 0, torch.distributed.get_rank()
            for parameter in group:
                partition = parameter.partition_numel()
                start, stop = partition_slice(parameter.ds_numel, partition, rank)
                if start < stop:
                    piece = Piece(name=names[parameter], start=start, stop=stop, flat=flat, offset=offset)
                    self.pieces.append(piece)
                offset += partition


class Snapshot:
    """Host memory for what a rank writes, allocated and touched once, so that a later copy costs no new pages.

    Flat tensors of 8 and 4 values, of which the rank's pieces end at 7 and 4: the host has rows of 11 values, one a
    kind; values 0 to 6 are the first tensor's, 7 to 10 the second's.
    """

    def __init__(self, state: EngineState, rank: int, world_size: int) -> None:
        self._state = state
        owned = state.owned(rank, world_size)
        by_flat = defaultdict(list)
        for piece in owned:
            by_flat[piece.flat].append(piece)
        self._regions: list[tuple[int, int, int, int]] = []  # flat, first and last value in it, first value here
        self.pieces: list[Piece] = []
        """What the rank writes; `offset` counts in the host's rows."""
        self.numbers = 0
        """Values of each kind."""
        for flat, pieces in by_flat.items():
            first, last = min(p.offset for p in pieces), max(p.offset + p.size for p in pieces)
            self._regions.append((flat, first, last, self.numbers))
            for p in pieces:
                offset = self.numbers + p.offset - first
                self.pieces.append(Piece(name=p.name, start=p.start, stop=p.stop, flat=0, offset=offset))
            self.numbers += last - first
        self._rows: dict[str, Tensor] = {}

    @property
    def size_bytes(self) -> int:
        """Host memory of all kinds."""
        return len(KINDS) * self.numbers * NUMBER_BYTES

    def prepare(self) -> None:
        """Allocate the memory and touch every page (pinned for a GPU, which takes seconds); no error if it is there."""
        is_cuda = self._state.device.type == "cuda"
        for kind in KINDS:
            if kind not in self._rows:
                row = torch.empty(self.numbers, dtype=torch.float32, pin_memory=is_cuda)
                self._rows[kind] = row.zero_()

    def take(self, kinds: tuple[str, ...] = KINDS) -> None:
        """Copy the state as it is now; training stands still meanwhile."""
        self.prepare()
        with torch.no_grad():
            for kind in kinds:
                row = self._rows[kind]
                for flat, first, last, here in self._regions:
                    values = self._state.tensor(kind, flat)[first:last]
                    row[here : here + last - first].copy_(values, non_blocking=True)
        if self._state.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def view(self, kind: str, piece: Piece) -> memoryview:
        """The bytes of a piece of the last copy."""
        return self._rows[kind].numpy()[piece.offset : piece.offset + piece.size].data.cast("B")


def _masters(engine: Any) -> dict[nn.Parameter, Tensor]:
    """Without ZeRO: the tensor that AdamW updates for each parameter, its fp32 copy with bf16, else the parameter."""
    low, high = getattr(engine.optimizer, "fp16_groups", None), getattr(engine.optimizer, "fp32_groups", None)
    if low is None or high is None:
        return {parameter: parameter for group in engine.basic_optimizer.param_groups for parameter in group["params"]}
    return {p: m for ps, ms in zip(low, high, strict=True) for p, m in zip(ps, ms, strict=True)}
