"""Face of vl3.steps.compare_arms."""

from typing import Optional

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def compare_arms(
    workflow: dict,
    dataset: dsl.Input[dsl.Dataset],
    arm_1: dsl.Input[dsl.Artifact],
    arm_2: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    arm_3: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045 - the form that kfp reads
    arm_4: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
    arm_5: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
) -> None:
    """The scores of all arms side by side, beside the published ones."""
    from vl3.workflow.entry import run_step

    given = {"dataset": dataset, "arm_1": arm_1, "arm_2": arm_2, "arm_3": arm_3, "arm_4": arm_4, "arm_5": arm_5}
    run_step(
        "compare_arms",
        workflow=workflow,
        inputs={name: one.path for name, one in given.items() if one is not None},
        outputs={"report": report.path},
    )
