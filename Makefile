# Everything that is run by hand or by CI. Each target does its own set-up; `make` alone prints help.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Without bytecode every process of a run compiles its libraries again: 15 s each instead of 3.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH

# To add a variable, write it here; $(call option,NAME,name) then passes it on as --name.
VARIABLES := WORKFLOW RECIPE RUN DATA SET STAGES FROM MODEL ENDPOINT ARTIFACTS TRACKING RUN_ID NAMESPACE PIPELINE_VERSION PORT TESTS JOBS \
	FULL OVERLAY IMAGES BASE_IMAGE CACHES PYTHON KUBECONFIG SEED
# To add a target, write it here.
TARGETS := help run-pipeline evaluate submit report ui clean setup format lint typecheck imports test check audit golden images \
	lock-images licences test-images kind-up kind-down test-kind diff-manifests apply pin-images render pipeline-manifests stages-table commands-page \
	benchmarks-page chaos eval-env
.PHONY: $(TARGETS)

TESTS ?= tests
JOBS ?= 2
OVERLAY ?= kind

PYTHON_IN_VENV := .venv/bin/python
SETUP := .venv/.vl3-setup

# A variable's text is data: neither make nor a shell runs any part of it. Make takes it unexpanded ($(value)) and exports
# it; a recipe never contains it, only "$$NAME", which the shell replaces by one word.
$(foreach one,$(VARIABLES),$(if $(filter undefined,$(origin $(one))),,$(eval export override $(one) := $$(value $(one)))))
override option = $${$1:+--$2="$$$1"}
override overrides = set -f; set --; for one in $$SET; do set -- "$$@" --set="$$one"; done;

# Refuse what nobody reads: a misspelt variable would silently leave a default in place.
override quoted = '$(subst ','\'',$1)'
override refuse = $(error $(or $(shell python3 scripts/nearest_name.py $1 $(call quoted,$2) $(call quoted,$3) 2> /dev/null),$1 $2 \
	is unknown; all are $3))
override GIVEN := $(foreach one,$(.VARIABLES),$(if $(filter command,$(origin $(one))),$(one)))
$(foreach one,$(filter-out $(VARIABLES),$(GIVEN)),$(call refuse,variable,$(one),$(VARIABLES)))
$(foreach one,$(filter-out $(TARGETS) $(SETUP),$(MAKECMDGOALS)),$(call refuse,target,$(one),$(TARGETS)))
override OVERLAYS := $(notdir $(patsubst %/,%,$(wildcard manifests/overlays/*/)))
$(if $(filter-out $(OVERLAYS),$(OVERLAY))$(word 2,$(OVERLAY)),$(call refuse,overlay,$(OVERLAY),$(OVERLAYS)))

help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "; printf "Usage: make TARGET [NAME=value ...]\n"} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z][a-z-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Run
run-pipeline: $(SETUP) ## Run the workflow here: RECIPE=tiny DATA=folder RUN=name STAGES=multitask..video FROM=model SET="data.max_frames=64 seed=1"
	@$(overrides) exec .venv/bin/vl3 run start $(call option,WORKFLOW,workflow) $(call option,RECIPE,recipe) $(call option,RUN,run) \
		$(call option,DATA,data) $(call option,STAGES,stages) $(call option,FROM,from) $(call option,TRACKING,tracking) "$$@"

evaluate: $(SETUP) ## Measure a model, train nothing: MODEL=folder|s3://...|hf://owner/name|models:/name@alias DATA=folder RUN=name
	@$(overrides) exec .venv/bin/vl3 run start --workflow=evaluate $(call option,RECIPE,recipe) --run="$${RUN:-evaluate}" \
		$(call option,DATA,data) $(call option,MODEL,from) $(call option,TRACKING,tracking) "$$@"

submit: $(SETUP) ## Submit it to Kubeflow Pipelines: ENDPOINT=https://... DATA=s3://... ARTIFACTS=s3://... TRACKING=https://... PIPELINE_VERSION=git
	@$(overrides) exec .venv/bin/vl3 run submit $(call option,WORKFLOW,workflow) $(call option,RECIPE,recipe) \
		$(call option,DATA,data) $(call option,ARTIFACTS,artifacts) $(call option,TRACKING,tracking) \
		$(call option,STAGES,stages) $(call option,FROM,from) $(call option,ENDPOINT,endpoint) \
		$(call option,NAMESPACE,namespace) $(call option,RUN_ID,run-id) $(call option,PIPELINE_VERSION,version) "$$@"

report: $(SETUP) ## Print where the report of RUN=tiny is
	@exec .venv/bin/vl3 run report -- "$${RUN:-$${RECIPE:-tiny}}"

ui: $(SETUP) ## Serve MLflow's pages of all runs here (runs/mlflow.db); TRACKING=sqlite:////... for another store, PORT=5000
	@exec .venv/bin/vl3 registry ui $(call option,RUN,run) $(call option,TRACKING,tracking) $(call option,PORT,port)

clean: ## Remove build outputs and caches; keep runs/ and .venv
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

##@ Develop
setup: $(SETUP) ## Make .venv with the pinned dependencies (all other targets do this if needed)

eval-env: $(SETUP) ## Make .venv-eval: lmms-eval 0.7.3 with the model vl3, for published benchmarks
	@scripts/eval_env.sh

$(SETUP): pyproject.toml constraints.txt scripts/setup.sh scripts/install.py scripts/warm_bytecode.py
	@scripts/setup.sh $(filter $(TARGETS),$(MAKECMDGOALS))
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
test: $(SETUP) ## Tests that need no cluster, in two processes; TESTS=tests/unit/data JOBS=0 runs a part in one; FULL=1 adds the longest
	set -f; $(PYTHON_IN_VENV) -m pytest -m 'not cluster$(if $(FULL),, and not full)' --numprocesses="$$JOBS" --dist loadfile --no-loadscope-reorder \
		--durations 10 --durations-min 1 -- $$TESTS

check: lint typecheck imports audit ## Lint, types, import contracts, vulnerabilities, golden files, limits of the structure
	$(PYTHON_IN_VENV) -m pytest -q tests/golden tests/structure

audit: $(SETUP) ## Known vulnerabilities of the pinned libraries, where the package index has a list of them
	@$(PYTHON_IN_VENV) scripts/audit.py

golden: $(SETUP) ## Rewrite the golden files; review the diff
	$(PYTHON_IN_VENV) -m pytest -q tests/golden --update-golden

chaos: $(SETUP) ## Kill, move, damage and starve training at random moments; SEED=1 repeats a run, about 20 minutes
	@$(PYTHON_IN_VENV) -m benchmarks.chaos_training $(call option,SEED,seed)

##@ Cluster
images: $(SETUP) ## Build the images; IMAGES="trainer data" for some, BASE_IMAGE=python:3.11-slim-bookworm to use that base
	@set -f; $(PYTHON_IN_VENV) -m images.build -- $$IMAGES

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

diff-manifests: $(SETUP) ## Print what applying OVERLAY=kind|staging|prod|single-user would change on the cluster of KUBECONFIG
	@.venv/bin/kubectl diff --server-side --force-conflicts -k "manifests/overlays/$$OVERLAY" || test $$? = 1

apply: $(SETUP) ## Apply OVERLAY=kind|staging|prod|single-user to the cluster of KUBECONFIG
	.venv/bin/kubectl apply --server-side --force-conflicts --field-manager=vl3 -k "manifests/overlays/$$OVERLAY"

pin-images: $(SETUP) ## Write the digests of the pushed images into the production overlay
	@docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' \
		$$($(PYTHON_IN_VENV) manifests/pin_images.py --images) | $(PYTHON_IN_VENV) manifests/pin_images.py

render: $(SETUP) ## Print the manifests of OVERLAY=kind|staging|prod|single-user
	@.venv/bin/kubectl kustomize "manifests/overlays/$$OVERLAY"

pipeline-manifests: $(SETUP) ## Rewrite manifests/pipelines from the workflows
	$(PYTHON_IN_VENV) -m vl3.pipelines.compile --manifests manifests/pipelines

##@ Docs
stages-table: $(SETUP) ## Rewrite docs/stages.md from the recipes
	.venv/bin/vl3 stages table > build/stages.md
	mv build/stages.md docs/stages.md

commands-page: $(SETUP) ## Rewrite docs/commands.md from the command's own help
	$(PYTHON_IN_VENV) -m typer vl3.cli.main utils docs --name vl3 --title Commands > build/commands.md
	mv build/commands.md docs/commands.md

benchmarks-page: $(SETUP) ## Rewrite docs/benchmarks.md from benchmarks/results
	$(PYTHON_IN_VENV) -m benchmarks.make_page
