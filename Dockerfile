# The exporter, and nothing to build with: what is installed comes from the first stage as a virtual environment.
FROM python:3.13.9-slim AS build
WORKDIR /src
RUN python3 -m venv --without-pip /opt/connection-exporter
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
COPY prometheus prometheus
COPY alertmanager alertmanager
COPY grafana grafana
COPY docs docs
# The extra is for `docker exec -it ... watch`. EXTRAS=demo,terminal adds PostgreSQL and Redis, for `docker run ... demo`.
ARG EXTRAS=terminal
RUN python3 -m pip --python /opt/connection-exporter/bin/python install \
      --no-cache-dir --disable-pip-version-check --compile ".${EXTRAS:+[$EXTRAS]}"

FROM python:3.13.9-slim
# docker build --build-arg VERSION=… --build-arg REVISION=…, as the release does.
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="connection-exporter" \
      org.opencontainers.image.description="Holds a live connection to everything a system depends on, and reports within milliseconds when one breaks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://github.com/connection-exporter/connection-exporter" \
      org.opencontainers.image.source="https://github.com/connection-exporter/connection-exporter" \
      org.opencontainers.image.documentation="https://github.com/connection-exporter/connection-exporter/blob/main/docs/README.md" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# Nothing is installed into a running container, so what installs goes too. /etc/alertmanager is where the one-shot of
# docker-compose.yml writes: a new volume takes over the owner of the folder that it is mounted on.
RUN python3 -m pip uninstall --yes --quiet --root-user-action=ignore pip \
 && rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/ensurepip \
 && install -d -o 65534 -g 65534 /etc/alertmanager
COPY --from=build /opt/connection-exporter /opt/connection-exporter
ENV PATH=/opt/connection-exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The config is mounted here; without one, DATABASE_URL and its like are read.
WORKDIR /etc/connection-exporter
# By number, so that Kubernetes can see that it is not root. The same as Prometheus' and Alertmanager's images have. Any
# other user works as well: nothing is written, and every file is readable for everybody.
USER 65534:65534
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/-/healthy', timeout=4)"]
ENTRYPOINT ["connection-exporter"]
