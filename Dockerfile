# The example registry: `docker build -t layercache-registry .`
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY cli cli
COPY examples examples
COPY src src
COPY tests tests
# The target folder is in a cache of the builder and not in the image, so the result is copied out
# of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package registry && cp target/release/registry /registry

FROM debian:bookworm-slim
# S3 through `https://` needs the root certificates.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 registry && install -d -o registry /var/lib/registry
COPY --from=build /registry /usr/local/bin/registry
USER registry
ENV LAYERCACHE_LISTEN=0.0.0.0:5000 LAYERCACHE_STORAGE=/var/lib/registry
EXPOSE 5000
VOLUME /var/lib/registry
# The image has no curl, so bash sends the request.
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/5000 && printf 'GET /v2/ HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["registry"]
