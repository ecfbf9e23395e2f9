# Headrace with what a live flow needs; another set of extras: --build-arg EXTRAS=demo; packages beside it, such as that
# of an object store: --build-arg PACKAGES=s3fs
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --quiet --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=live
ARG PACKAGES=""
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --root-user-action=ignore "$(echo /wheels/headrace-*.whl)[$EXTRAS]" $PACKAGES
RUN useradd --create-home --uid 1000 headrace && install --directory --owner=headrace /data
USER headrace
WORKDIR /home/headrace
ENV HEADRACE_DATA=/data NUMBA_CACHE_DIR=/home/headrace/.kernels PYTHONUNBUFFERED=1
# Compiled here; a processor of another kind compiles its own at the first start.
RUN python -m headrace.flows.warm
VOLUME /data
ENTRYPOINT ["headrace"]
CMD ["--help"]
