# A C compiler with Python's headers, for the images with torch: Triton compiles a stub for each fused kernel on a GPU.
# Only on our own Debian base, whose script makes COMPILER_IMAGE; another base image brings gcc itself.
ARG BASE_IMAGE
ARG COMPILER_IMAGE
FROM ${COMPILER_IMAGE} AS compiler
FROM ${BASE_IMAGE}
COPY --from=compiler / /
