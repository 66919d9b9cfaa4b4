# The `backstitch` binary alone. Sagas and migrations are compiled in; mount a directory over
# /sagas to serve other definitions.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ make cmake libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock askama.toml ./
# The dependencies in a layer of their own, which a change to our sources leaves standing.
RUN mkdir -p src tests/it \
    && echo 'fn main() {}' | tee src/main.rs > tests/it/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin backstitch
COPY src src
COPY migrations migrations
COPY sagas sagas
# Newer than the stand-ins above, or cargo would keep what it built from them.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin backstitch \
    && strip target/release/backstitch

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir / --shell /usr/sbin/nologin backstitch
COPY --from=build /build/target/release/backstitch /usr/local/bin/backstitch
COPY sagas /sagas
USER 10001
EXPOSE 8080
# SIGTERM: finish the batch, acknowledge, stop.
STOPSIGNAL SIGTERM
ENTRYPOINT ["backstitch"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--sagas", "/sagas"]
