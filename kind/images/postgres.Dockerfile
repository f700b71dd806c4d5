# PostgreSQL 15 from Debian, for the MLflow server of the kind overlay. Data lies in a mounted folder.
FROM vl3/debian-python:bookworm
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/lib/postgresql/15 \
 && useradd --uid 65532 --user-group --no-create-home --home-dir /nonexistent nonroot
COPY start-postgres /usr/local/bin/
USER 65532:65532
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PGDATA=/var/lib/postgresql/data/pgdata
EXPOSE 5432
ENTRYPOINT ["start-postgres"]
