"""Every number of every configuration class has a range, and what is outside is refused when the class is built."""

import dataclasses
import importlib
import json
import math
import pkgutil
from dataclasses import replace
from typing import Any, get_type_hints

import pytest

import vl3.config
from vl3.config.checks import Range, declared_rules, require_name
from vl3.config.curation import VideoSynthesis
from vl3.config.endpoint import EndpointConfig
from vl3.config.fabric import FabricConfig, Toleration
from vl3.config.mixture import Draw
from vl3.config.overrides import apply_overrides
from vl3.config.picture import Fit, FixedPicture
from vl3.config.run import RunConfig
from vl3.config.stages import LoraConfig
from vl3.errors import ConfigError
from vl3.launch.job import LaunchJob
from vl3.recipes.catalog import get_any_recipe, get_recipe

TINY, ABLATION, CURATION = get_recipe("tiny"), get_recipe("ablation_tiny"), get_any_recipe("curate_tiny")
ENDPOINT = EndpointConfig(
    url="http://localhost:8000/v1",
    model="m",
    version="1",
    requests_per_minute=60.0,
    spend_limit_usd=1.0,
    usd_per_million_input_tokens=1.0,
)
VIDEO = replace(TINY.stages["video"], lora=LoraConfig(), timeout_seconds=60.0)
OBJECTS = [
    TINY,
    TINY.model,
    TINY.data,
    VIDEO,
    VIDEO.learning_rates,
    VIDEO.lora,
    Draw(amount=2.0, max_epochs=1.0, cap=5),
    TINY.optimizer,
    TINY.engine,
    TINY.launch,
    TINY.loader,
    replace(TINY.placements["video"], min_nodes=1, gpus_per_node=2, price_per_gpu_hour=2.5),
    FabricConfig(devices={"rdma/hca": 1}, hugepages_gib={"2Mi": 1.0}),
    Toleration(key="gpu", effect="NoExecute", seconds=1),
    TINY.step_pods.evaluator,
    TINY.evaluation,
    TINY.promotion,
    replace(TINY.promotion.gates["beats_chance"], threshold=0.5),
    ABLATION,
    ABLATION.arms["clip"],
    FixedPicture(side_px=56, fit=Fit.CROP),
    ENDPOINT,
    CURATION,
    CURATION.launch,
    CURATION.scorers["clip"],
    CURATION.steps["clusters"],
    VideoSynthesis(captioner=ENDPOINT),
]
NUMBERS = [
    (one, field.name)
    for one in OBJECTS
    for field in dataclasses.fields(one)  # type: ignore[arg-type]
    if isinstance(getattr(one, field.name), int | float) and not isinstance(getattr(one, field.name), bool)
]


def names_a_number(hint: object) -> bool:
    return any(kind in str(hint) for kind in ("int", "float"))


def config_classes() -> list[type]:
    modules = [importlib.import_module(f"vl3.config.{one.name}") for one in pkgutil.iter_modules(vl3.config.__path__)]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__
    }
    return sorted(found - {Range}, key=lambda cls: cls.__name__)


def test_every_class_is_tried() -> None:
    """A class that has numbers and is not among OBJECTS would be missed below."""
    with_numbers = {cls for cls in config_classes() if any(names_a_number(h) for h in get_type_hints(cls).values())}
    assert with_numbers <= {type(one) for one in OBJECTS}


@pytest.mark.parametrize("cls", [*config_classes(), LaunchJob], ids=lambda cls: cls.__name__)
def test_every_number_declares_its_range(cls: type) -> None:
    rules = declared_rules(cls)
    nested = {name for name, hint in get_type_hints(cls).items() if "vl3.config" in str(hint)}
    numbers = {name for name, hint in get_type_hints(cls).items() if names_a_number(hint)} - nested
    assert numbers <= set(rules)


OUTSIDE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1, "tiny": -1e-300, "huge": 10**5000}


@pytest.mark.parametrize("value", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize(("one", "name"), NUMBERS, ids=lambda value: value if isinstance(value, str) else "")
def test_no_number_may_be_negative_huge_or_not_finite(one: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(one, **{name: value})
    message = str(caught.value)
    assert f"{name}=" in message
    assert len(message) < 300
    assert message.endswith(".")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_a_threshold_may_be_negative_but_is_finite(value: float) -> None:
    step = CURATION.steps["similarity"]
    assert replace(step, minimum=-0.5).minimum == -0.5
    with pytest.raises(ConfigError, match=r"steps\.minimum="):
        replace(step, minimum=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e300])
def test_a_weight_of_a_mixture_is_a_positive_number(value: float) -> None:
    with pytest.raises(ConfigError, match=r"^stage\.mixture\.chart=\S+ must be greater than 0"):
        replace(VIDEO, mixture={"chart": value})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "stages.video.learning_rates.vision=NaN",
            "learning_rates.vision=nan must be greater than 0 and at most 1e+30.",
        ),
        ("stages.video.learning_rates.vision=Infinity", "learning_rates.vision=inf must be greater than 0 and at most"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1.0 is negative. Use 0 or more."),
        (
            "optimizer.max_grad_norm=NaN",
            "optimizer.max_grad_norm=nan must be greater than 0 and at most 1,000,000,000,000.",
        ),
        ("optimizer.beta2=1.0", "optimizer.beta2=1.0 must be at least 0 and below 1. Set such a value."),
        ("optimizer.warmup_ratio=NaN", "optimizer.warmup_ratio=nan is not a fraction. Set a value from 0 to 1."),
        ("data.difffp_threshold=NaN", "data.difffp_threshold=nan must be at least 0 and at most 1,000,000."),
        ("data.video_fps=Infinity", "data.video_fps=inf must be at least 0.0001 and at most 1,000."),
        ("stages.video.mixture.chart=Infinity", "stage.mixture.chart=inf must be greater than 0 and at most"),
        ("stages.video.steps=1" + "0" * 40, "must be at least 1 and at most 1,000,000,000. Set such a value."),
        ("seed=-1", "seed=-1 must be at least 0 and below 4,294,967,296."),
        ("seed=4294967296", "seed=4294967296 must be at least 0 and below 4,294,967,296."),
        ("optimizer.weight_decay=1" + "0" * 400, "cannot be used (int too large to convert to float)"),
        ("stages.video.steps=1" + "0" * 5000, "is not an int @ RunConfig.stages['video'].steps."),
        ("data.max_frames=" + "[" * 100_000, "is not an int @ RunConfig.data.max_frames."),
        ("model.vision_base=\ud800", "cannot be used ("),
        ("stages.video.timeout_seconds=NaN", "stage.timeout_seconds=nan must be greater than 0"),
        ("engine.max_skipped_fraction=1", "engine.max_skipped_fraction=1.0 must be at least 0 and below 1."),
    ],
    ids=lambda text: text[:40].encode("ascii", "replace").decode() if "=" in text else "",
)
def test_an_override_outside_its_range_is_refused_in_one_sentence(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(TINY, [override])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_every_recipe_is_within_its_ranges_and_no_limit_is_the_default() -> None:
    for recipe in ("tiny", "vl3_2b", "vl3_7b"):
        config: RunConfig = get_recipe(recipe)
        assert {stage.timeout_seconds for stage in config.stages.values()} == {None}
        assert all(stage.stall_seconds >= 1800 <= stage.startup_seconds for stage in config.stages.values())


@pytest.mark.parametrize(
    "name",
    ["team/vl3", "it's", "", " ", "a b", "a:b", "a@b", "a#b", "a%20b", '"', "é", "-a", "a.", "a\n", "a\0b", "x" * 101],
)
def test_a_name_that_mlflow_or_a_uri_cannot_hold_is_refused_at_once(name: str) -> None:
    for override in ("promotion.registered_model", "name"):
        with pytest.raises(ConfigError, match=r"cannot name a model or an experiment of MLflow\. Use 1 to 100 letters"):
            apply_overrides(TINY, [f"{override}={json.dumps(name)}"])


@pytest.mark.parametrize("name", ["vl3", "vl3-2b", "team.schema.vl3_7b", "V", "3", "x" * 100])
def test_a_plain_name_is_taken(name: str) -> None:
    require_name("promotion.registered_model", name)
    assert apply_overrides(TINY, [f"promotion.registered_model={json.dumps(name)}"]).promotion.registered_model == name
