# The libraries of an image that holds the project's own code as well: a layer that changes only with their pins, kept
# as an image of its own, so that another commit sends Docker no more than the code.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY libraries/ /
