# Layby as a container.
#
#   docker build -t layby .
#   docker run -p 5000:5000 -v layby:/data layby
#
# Around a binary that is already built, without a network, on a base that is there or on `scratch`:
#
#   docker build --target packaged --build-arg BASE=scratch --build-arg ROOT=rootfs -t layby .
#
# where rootfs/ holds usr/local/bin/layby and, as the base lacks them, the libraries that it is linked to and
# etc/ssl/certs/ca-certificates.crt. Stages stand in this order since the classic builder runs all those before its target.

ARG BASE=gcr.io/distroless/cc-debian12
ARG RUST=rust:1.95-slim-bookworm

# An empty directory: a base without a shell cannot make one.
FROM scratch AS empty
WORKDIR /data

# All of the image but the binary. The base brings CA roots, libc and libgcc.
FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="Layby" \
      org.opencontainers.image.description="A caching pull-through proxy for container registries" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=empty --chown=65532:65532 /data /data
ENV LAYBY_LISTEN=0.0.0.0:5000 \
    LAYBY_DATA_DIR=/data
USER 65532:65532
VOLUME /data
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/layby", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/layby"]
CMD ["serve"]

# With a binary from the build context.
FROM runtime AS packaged
ARG ROOT=rootfs
COPY ${ROOT}/ /

FROM ${RUST} AS build
WORKDIR /src
# Dependencies alone, around an empty program: this layer lasts until the lock file changes.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[/,/^$/d' Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked
COPY . .
# Newer than what was built of the empty program.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked

# With the binary built here.
FROM runtime
COPY --from=build /src/target/release/layby /usr/local/bin/layby
