# The function in the smallest image that holds a whole Python: Python, watchdog_app.py, of-watchdog and the function, nothing else.
# It needs BuildKit, for the secrets of private indexes.
ARG PYTHON_VERSION=3.13
ARG WATCHDOG_VERSION=0.11.6

FROM ghcr.io/openfaas/of-watchdog:${WATCHDOG_VERSION} AS watchdog

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 DEBIAN_FRONTEND=noninteractive
ARG TARGETARCH
RUN [ -n "$TARGETARCH" ] || { echo "This image needs BuildKit: install docker-buildx, or set DOCKER_BUILDKIT=1" >&2; exit 1; }
ARG UPGRADE_PACKAGES=false
RUN if [ "$UPGRADE_PACKAGES" = "true" ] || [ "$UPGRADE_PACKAGES" = "1" ]; then apt-get update && apt-get -y upgrade; fi
RUN if [ ! -f /etc/ssl/certs/ca-certificates.crt ] || [ ! -d /usr/share/zoneinfo ]; then \
        apt-get update && apt-get -y install --no-install-recommends ca-certificates tzdata; fi

# Layer 1: Python and of-watchdog
COPY image/collect.py /image/
COPY --from=watchdog /fwatchdog /python/usr/bin/fwatchdog
COPY watchdog_app.py /build/watchdog_app.py
RUN python3 /image/collect.py python /python && \
    python3 -c "import py_compile as c; c.compile('/build/watchdog_app.py', '/python/home/app/watchdog_app.pyc', 'watchdog_app.py', doraise=True, optimize=1, invalidation_mode=c.PycInvalidationMode.UNCHECKED_HASH)" && \
    chmod 755 /python/usr/bin/fwatchdog && \
    python3 /image/collect.py libraries /python && python3 /image/collect.py seal /python

# What the template brings beside install.py: Flask, compilers, its own example. What is named by a pattern need not be there
COPY image/install.py image/*.tx[t] image/example*.p[y] /image/

# What says what the function depends on: equal content is an equal layer, so that a changed handler.py installs nothing anew
FROM build AS wanted
COPY handler /handler
RUN python3 /image/install.py wanted /handler /wanted

# Layer 2: what the function depends on
FROM build AS packages
ARG ADDITIONAL_PACKAGE=""
ARG BUILD_PACKAGE=""
RUN mkdir -p /packages/var/openfaas && python3 /image/install.py debian /packages
COPY --from=wanted /wanted /wanted
RUN --mount=type=secret,id=pipconf --mount=type=secret,id=pip_index_url --mount=type=secret,id=netrc,target=/root/.netrc \
    python3 /image/install.py python /wanted /packages && \
    site=/packages$(python3 -c "import site; print(site.getsitepackages()[0])") && \
    python3 -m compileall -q --invalidation-mode unchecked-hash "$site" && \
    python3 /image/collect.py libraries /packages && python3 /image/collect.py seal /packages

# Layer 3: the function, and its tests, which run in a copy
FROM packages AS function
COPY handler /function/home/app/function
RUN if cmp -s /function/home/app/function/handler_test.py /image/example_test.py && ! cmp -s /function/home/app/function/handler.py /image/example.py; then \
        echo "handler_test.py is left out: it is the template's, and handler.py is not"; rm /function/home/app/function/handler_test.py; fi
ARG TEST_ENABLED=true
ARG TEST_COMMAND="python3 -P -m pytest -p watchdog_app --import-mode=importlib --rootdir=.. -p no:cacheprovider"
RUN --mount=type=secret,id=pipconf --mount=type=secret,id=pip_index_url --mount=type=secret,id=netrc,target=/root/.netrc \
    python3 /image/install.py pytest /function/home/app/function /pytest
RUN site=/packages$(python3 -c "import site; print(site.getsitepackages()[0])") && export PYTHONPATH=/build:$site:/pytest watchdog_app_function=/build/function && \
    cp -r /function/home/app/function /build/function && cd /build/function && \
    if [ "$TEST_ENABLED" = "false" ]; then echo "tests are switched off"; \
    elif [ -f /pytest/none ]; then echo "the function has no tests"; \
    else eval "$TEST_COMMAND"; fi
# Compiled with a hash of its source, which is looked at: a handler.py that is mounted over this one counts
RUN python3 -m compileall -q --invalidation-mode checked-hash /function/home/app/function && python3 /image/collect.py seal /function

FROM scratch
COPY --from=build /python/ /
COPY --from=packages /packages/ /
COPY --from=function /function/ /
WORKDIR /home/app
# A number: Kubernetes cannot tell from a name that it is not root
USER 12000:12000
# The path of both layouts of the interpreter; /tmp is the one folder that may be written; a read-only root takes no bytecode;
# nothing is imported from /tmp, and the start does not look for it; two arenas, of which at most 1 MiB each is kept, keep glibc's memory flat
ENV PATH=/usr/local/bin:/usr/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=1048576
# of-watchdog proxies to the function over HTTP; the runtime, not of-watchdog, writes the lock file, when it listens
ENV mode=http upstream_url=http://127.0.0.1:5000 suppress_lock=true fprocess="python3 /home/app/watchdog_app.pyc"
# write_timeout is above exec_timeout: else a call that takes too long gets no 504 of of-watchdog, but no response at all.
# After SIGTERM calls are accepted for 5 s, within the 10 s that `docker stop` waits; lines of any length are logged
ENV healthcheck_interval=5s exec_timeout=30s read_timeout=35s write_timeout=35s log_buffer_size=-1
EXPOSE 8080
# Writable under a read-only root too, where nothing else is mounted: the lock file, by which probes tell that the function is ready, is there
VOLUME /tmp
HEALTHCHECK --interval=5s --timeout=3s CMD ["fwatchdog", "-run-healthcheck"]
CMD ["fwatchdog"]
