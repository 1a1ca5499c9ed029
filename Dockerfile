# The image: one static binary in an empty file system, run by a user without rights.
#
#   docker build -t odometer .        podman build --format docker -t odometer .      (podman's own format knows no health check)
#
# The server keeps everything in /data. Its ops listener, 9464, answers without a key: never publish that port.
# Must never: contain a shell, a secret or a package manager, run as root, or need to write anywhere but in /data and /logs.

# Another registry, or an image of your own with Rust and a C compiler: --build-arg RUST_IMAGE=...
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /build
# With a target named, these flags are for the binary only, and build scripts and macros stay dynamic.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=symbols

# The dependencies, in a layer that is made again only when one of these three files changes: they are built around an empty program.
# Cargo wants every bench that the manifest names to be there.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src benches \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && sed -n '/^\[\[bench\]\]/,/^name/s/^name = "\(.*\)"$/benches\/\1.rs/p' Cargo.toml >benches/names \
    && xargs touch <benches/names \
    && cargo build --release --locked --target "$(rustc --print host-tuple)"

# The program. The copies may be older than the empty ones, and Cargo goes by the time.
COPY src src
ARG REVISION=unknown
RUN touch src/main.rs src/lib.rs \
    && ODOMETER_GIT_REVISION="${REVISION}" cargo build --release --locked --target "$(rustc --print host-tuple)"

# The two trees of the image: the program is root's, the folders are the user's. Another container may read the logs, and ship them, without rights.
COPY LICENSE-APACHE LICENSE-MIT /image/root/licenses/
RUN install -m 0755 target/*/release/odometer /image/root/odometer \
    && install -d -m 0700 /image/user/data \
    && install -d -m 0755 /image/user/logs

FROM scratch
COPY --from=build /image/root/ /
COPY --from=build --chown=65532:65532 /image/user/ /

# In here "all addresses" are those of the container's own network; what can be reached from outside is decided by what is published.
# Every setting has such a name, see docs/configuration.md. Logs are JSON on stdout, and the banner is left out, so that each line is one event.
ENV ODOMETER_DATA_DIR=/data \
    ODOMETER_LISTEN=0.0.0.0:8443 \
    ODOMETER_HTTP_LISTEN=0.0.0.0:8080 \
    ODOMETER_OPS_LISTEN=0.0.0.0:9464 \
    ODOMETER_LOG_FORMAT=json

USER 65532:65532
VOLUME /data
EXPOSE 8443 8080 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/odometer", "healthcheck"]
ENTRYPOINT ["/odometer"]
CMD ["serve"]

# Last, since a new date would make every later layer anew. VERSION is Cargo.toml's.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Odometer" \
      org.opencontainers.image.description="Integers that go up by one, as a service: durable, unique, consecutive, over HTTPS" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
