"""A worker trains without importing what it does not need, and its AdamW is torch's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from vl3.training.no_compiler import AdamW, leave_compiler_out

_PROGRAM = """
import sys
from vl3.training import worker
code = worker.main(["--job", sys.argv[1]])
print("exit", code, *[name for name in sys.argv[2:] if sys.modules.get(name)], flush=True)
import os; os._exit(code)
"""
_HEAVY = ("torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "transformers", "liger_kernel", "peft", "mlflow")


def test_a_stage_trains_without_compiler_and_without_transformers(stage_inputs: Any, tmp_path: Path) -> None:
    job = stage_inputs.job(tmp_path / "job", **{"stages.vision_adaptation.steps": 2})
    job.write(tmp_path / "job.json")
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "job.json"), *_HEAVY],
        env=os.environ | ranks | address,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1:] == ["exit 0"], done.stderr[-3000:]


def test_adamw_is_torchs_bit_by_bit() -> None:
    torch.manual_seed(0)
    start, results = torch.randn(7, 5), []
    for kind in (AdamW, torch.optim.AdamW):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = kind([parameter], lr=0.01, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
        for step in range(3):
            parameter.grad = torch.full_like(start, 0.1 * (step + 1)) * start
            optimizer.step()
        results.append(parameter.detach())
    assert torch.equal(*results)
    assert not torch.equal(results[0], start)


def test_leaving_the_compiler_out_twice_changes_nothing() -> None:
    before = torch.compile
    leave_compiler_out()
    leave_compiler_out()
    assert torch.compile is before
    AdamW([torch.nn.Parameter(torch.ones(2))]).zero_grad()
