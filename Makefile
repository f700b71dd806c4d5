# Everything that is run by hand or by CI. Each target does its own set-up; `make` alone prints help.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Without bytecode every process of a run compiles its libraries again: 15 s each instead of 3.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH

WORKFLOW ?= train
RECIPE ?=
RUN ?= $(if $(filter evaluate,$(MAKECMDGOALS)),evaluate,$(or $(RECIPE),tiny))
RUN_FOLDER = $(if $(findstring /,$(RUN)),$(RUN),runs/$(RUN))
DATA ?=
STAGES ?=
FROM ?=
MODEL ?=
export STAGES FROM MODEL
SET ?=
TESTS ?= tests
JOBS ?= 2
FULL ?=
OVERLAY ?= kind

PYTHON_IN_VENV := .venv/bin/python
SETUP := .venv/.vl3-setup
SAMPLE := build/data/tiny

.PHONY: help run-pipeline ui submit report clean setup format lint typecheck imports test check audit golden images lock-images licences test-images \
.PHONY: help run-pipeline evaluate submit report clean setup format lint typecheck imports test check audit golden images lock-images licences test-images \
	kind-up kind-down test-kind diff-manifests apply pin-images render pipeline-manifests stages-table benchmarks-page

help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "; printf "Usage: make TARGET [NAME=value ...]\n"} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z][a-z-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Run
run-pipeline: $(SETUP) ## Run the workflow here: WORKFLOW=train RECIPE=tiny DATA=folder RUN=name SET="data.max_frames=64 seed=1" STAGES=multitask..video FROM=model
	@$(if $(DATA),,.venv/bin/vl3 data sample --out $(SAMPLE) --seed 0)
	@$(PYTHON_IN_VENV) -m vl3.pipelines.run --workflow '$(WORKFLOW)' --recipe '$(RECIPE)' --data '$(or $(DATA),$(SAMPLE))' --run '$(RUN_FOLDER)' \
		$(if $(TRACKING),--tracking '$(TRACKING)') $(foreach override,$(SET),--set '$(override)')

ui: $(SETUP) ## Serve MLflow's pages of all runs here (runs/mlflow.db); TRACKING=sqlite:////... for another store
	@.venv/bin/vl3 registry ui --run '$(RUN_FOLDER)' $(if $(TRACKING),--tracking '$(TRACKING)') $(if $(PORT),--port '$(PORT)')
		--stages "$$STAGES" --from "$$FROM" $(foreach override,$(SET),--set '$(override)')

evaluate: $(SETUP) ## Accuracy of a model without training: MODEL=folder|s3://...|hf://owner/name|models:/name@alias DATA=folder RUN=name
	@$(if $(DATA),,.venv/bin/vl3 data sample --out $(SAMPLE) --seed 0)
	@$(PYTHON_IN_VENV) -m vl3.pipelines.run --workflow evaluate --recipe '$(RECIPE)' --data '$(or $(DATA),$(SAMPLE))' --run '$(RUN_FOLDER)' \
		--from "$$MODEL" $(foreach override,$(SET),--set '$(override)')

submit: $(SETUP) ## Submit it to Kubeflow Pipelines: ENDPOINT=https://... DATA=s3://... ARTIFACTS=s3://... TRACKING=https://...
	@.venv/bin/vl3 run submit --workflow '$(WORKFLOW)' --recipe '$(RECIPE)' $(if $(ENDPOINT),--endpoint '$(ENDPOINT)') --data '$(DATA)' \
		--artifacts '$(ARTIFACTS)' --tracking '$(TRACKING)' --stages "$$STAGES" --from "$${FROM:-$$MODEL}" \
		$(if $(RUN_ID),--run-id '$(RUN_ID)') $(if $(NAMESPACE),--namespace '$(NAMESPACE)') $(foreach override,$(SET),--set '$(override)')

report: ## Print where the report of RUN=tiny is
	@test -f '$(RUN_FOLDER)/report/report.html' && echo "file://$(abspath $(RUN_FOLDER))/report/report.html" \
		|| { echo "$(RUN_FOLDER) has no report yet. Make it with: make run-pipeline RUN=$(RUN)" >&2; exit 2; }

clean: ## Remove build outputs and caches; keep runs/ and .venv
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

##@ Develop
setup: $(SETUP) ## Make .venv with the pinned dependencies (all other targets do this if needed)

$(SETUP): pyproject.toml constraints.txt scripts/setup.sh scripts/warm_bytecode.py
	@scripts/setup.sh
	@touch $@

format: $(SETUP) ## Rewrite the sources in the project's format
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

lint: $(SETUP) ## Format and lint rules (ruff)
	.venv/bin/ruff format --check
	.venv/bin/ruff check

typecheck: $(SETUP) ## Types (mypy)
	.venv/bin/mypy

imports: $(SETUP) ## Who may import whom (import-linter)
	.venv/bin/lint-imports --no-cache

test: export OMP_NUM_THREADS ?= 1
test: $(SETUP) ## All tests that need no cluster, in two processes; TESTS=tests/unit/data JOBS=0 runs a part in one process
	$(PYTHON_IN_VENV) -m pytest -m 'not cluster' --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder \
		--durations 10 --durations-min 1 $(TESTS)

check: lint typecheck imports audit ## Lint, types, import contracts, vulnerabilities, golden files, limits of the structure
	$(PYTHON_IN_VENV) -m pytest -q tests/golden tests/structure

audit: $(SETUP) ## Known vulnerabilities of the pinned libraries, where the package index has a list of them
	@$(PYTHON_IN_VENV) scripts/audit.py

golden: $(SETUP) ## Rewrite the golden files; review the diff
	$(PYTHON_IN_VENV) -m pytest -q tests/golden --update-golden

##@ Cluster
images: $(SETUP) ## Build the images; IMAGES="trainer data" for some, BASE_IMAGE=python:3.11-slim-bookworm to use that base
	@BASE_IMAGE='$(BASE_IMAGE)' $(PYTHON_IN_VENV) -m images.build $(IMAGES)

lock-images: $(SETUP) ## Pin the libraries of the images again (images/*/requirements.txt)
	$(PYTHON_IN_VENV) -m images.lock

licences: $(SETUP) ## Rewrite THIRD_PARTY.md, the licences of the libraries in the images
	$(PYTHON_IN_VENV) -m images.licences

test-images: $(SETUP) ## Test each image as a restricted container
	$(PYTHON_IN_VENV) -m pytest tests/images

kind-up: $(SETUP) ## Start a kind cluster with queues, S3, MLflow and our images, ready for TrainJobs
	@$(PYTHON_IN_VENV) -m kind prepare
	@$(MAKE) images
	@$(PYTHON_IN_VENV) -m kind up

test-kind: export VL3_TEST_CLUSTER = required
test-kind: $(SETUP) ## Tests on that cluster; FULL=1 adds chaos, scale and the whole recipe
	$(PYTHON_IN_VENV) -m pytest $(if $(FULL),,-m 'cluster and not full') --durations 12 tests/cluster tests/manifests

kind-down: $(SETUP) ## Delete the cluster; CACHES=1 also removes the caches
	@$(PYTHON_IN_VENV) -m kind down $(if $(CACHES),--caches)

diff-manifests: $(SETUP) ## Print what applying OVERLAY=kind|staging|prod would change on the cluster of KUBECONFIG
	@.venv/bin/kubectl diff --server-side --force-conflicts -k manifests/overlays/$(OVERLAY) || test $$? = 1

apply: $(SETUP) ## Apply OVERLAY=kind|staging|prod to the cluster of KUBECONFIG
	.venv/bin/kubectl apply --server-side --force-conflicts --field-manager=vl3 -k manifests/overlays/$(OVERLAY)

pin-images: $(SETUP) ## Write the digests of the pushed images into the production overlay
	@docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' \
		$$($(PYTHON_IN_VENV) manifests/pin_images.py --images) | $(PYTHON_IN_VENV) manifests/pin_images.py

render: $(SETUP) ## Print the manifests of OVERLAY=kind|staging|prod
	@.venv/bin/kubectl kustomize manifests/overlays/$(OVERLAY)

pipeline-manifests: $(SETUP) ## Rewrite manifests/pipelines from the workflows
	$(PYTHON_IN_VENV) -m vl3.pipelines.compile --manifests manifests/pipelines

##@ Docs
stages-table: $(SETUP) ## Rewrite docs/stages.md from the recipes
	.venv/bin/vl3 stages table > build/stages.md
	mv build/stages.md docs/stages.md

benchmarks-page: $(SETUP) ## Rewrite docs/benchmarks.md from benchmarks/results
	$(PYTHON_IN_VENV) -m benchmarks.make_page
